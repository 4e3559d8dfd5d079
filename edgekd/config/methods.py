"""The catalogue of distillation methods: what each is for, needs and costs. Free of torch.

A recipe is checked against it before anything is trained, and it is what the command line prints.
The modules of the same names are in `edgekd.distill.methods`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekd.core.errors import RecipeError, suggest
from edgekd.core.types import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodInfo:
    """What there is to know of a method before it runs.

    Attributes:
        name: As in a recipe.
        tasks: That it serves.
        needs: Of the teacher ``cells`` (what it says of each, which is how EdgeKD's own detectors
            speak), ``outputs`` (raw, whatever they mean), ``features``, its own ``head``, or only
            the ``objects`` it detects (all that an external detector gives); ``labels`` is
            annotation.
        weight: Default beside the task loss.
        options: Option to default.
        cost: What it costs in training, and what a cache of teacher outputs must hold.
        source: Authors and where published.
        summary: What it teaches, in one line.
    """

    name: str
    tasks: frozenset[Task]
    needs: frozenset[str]
    weight: float
    options: Mapping[str, float] = field(default_factory=dict)
    cost: str
    source: str
    summary: str


_CLASSIFICATION = frozenset({Task.CLASSIFICATION})
_DETECTION = frozenset({Task.DETECTION})
_BOTH = _CLASSIFICATION | _DETECTION
_OUTPUTS = frozenset({"outputs"})
_CELLS = frozenset({"cells"})
_FEATURES = frozenset({"features"})

_CLASSIFIERS = (
    MethodInfo(
        name="soft-labels",
        tasks=_CLASSIFICATION,
        needs=_OUTPUTS,
        weight=1.0,
        options={"temperature": 4.0},
        cost="nothing; caches one number a class",
        source="Hinton et al., arXiv 1503.02531",
        summary="the teacher's whole class distribution, softened",
    ),
    MethodInfo(
        name="hard-labels",
        tasks=_CLASSIFICATION,
        needs=_OUTPUTS,
        weight=1.0,
        cost="nothing; caches one number a class",
        source="Touvron et al., arXiv 2012.12877",
        summary="the class that the teacher thinks best, as if annotated",
    ),
    MethodInfo(
        name="logit-matching",
        tasks=_CLASSIFICATION,
        needs=_OUTPUTS,
        weight=0.2,
        cost="nothing; caches one number a class",
        source="Ba and Caruana, arXiv 1312.6184",
        summary="the teacher's logits themselves, by squared error",
    ),
    MethodInfo(
        name="dkd",
        tasks=_CLASSIFICATION,
        needs=_OUTPUTS | {"labels"},
        weight=0.1,
        options={"alpha": 1.0, "beta": 8.0, "temperature": 4.0},
        cost="nothing; caches one number a class",
        source="Zhao et al., arXiv 2203.08679",
        summary="soft labels with the resemblance of wrong classes weighted on its own",
    ),
)

_FEATURES_OF_BOTH = (
    MethodInfo(
        name="hints",
        tasks=_BOTH,
        needs=_FEATURES,
        weight=1.0,
        cost="a 1x1 projector a level; caches features",
        source="FitNets, Romero et al., arXiv 1412.6550",
        summary="the teacher's features, by squared error over their energy",
    ),
    MethodInfo(
        name="attention",
        tasks=_BOTH,
        needs=_FEATURES,
        weight=2.0,
        cost="next to nothing; caches features",
        source="Zagoruyko and Komodakis, arXiv 1612.03928",
        summary="where in the image the teacher's features have their energy",
    ),
    MethodInfo(
        name="pkd",
        tasks=_BOTH,
        needs=_FEATURES,
        weight=4.0,
        cost="a 1x1 projector a level; caches features",
        source="Cao et al., arXiv 2207.02039",
        summary="the pattern of the teacher's features, whatever their scale",
    ),
    MethodInfo(
        name="cwd",
        tasks=_BOTH,
        needs=_FEATURES,
        weight=4.0,
        options={"temperature": 4.0},
        cost="a 1x1 projector a level; caches features",
        source="Shu et al., arXiv 2011.13256",
        summary="where each channel of the teacher is active",
    ),
    MethodInfo(
        name="mgd",
        tasks=_BOTH,
        needs=_FEATURES,
        weight=1.0,
        options={"mask": 0.5},
        cost="a projector and two 3x3 convolutions a level: slow; caches features",
        source="Yang et al., arXiv 2205.01529",
        summary="the teacher's features, generated from the student's with positions blanked",
    ),
    MethodInfo(
        name="rkd",
        tasks=_BOTH,
        needs=_FEATURES,
        weight=3.0,
        options={"distance": 1.0, "angle": 2.0},
        cost="memory with the batch size cubed; caches features",
        source="Park et al., arXiv 1904.05068",
        summary="distances and angles between the images of a batch",
    ),
    MethodInfo(
        name="similarity",
        tasks=_BOTH,
        needs=_FEATURES,
        weight=8.0,
        cost="next to nothing; caches features",
        source="Tung and Mori, arXiv 1907.09682",
        summary="which images of a batch resemble each other",
    ),
)

_DETECTORS = (
    MethodInfo(
        name="logits",
        tasks=_DETECTION,
        needs=_CELLS,
        weight=10.0,
        options={"gamma": 1.0},
        cost="next to nothing; caches raw outputs",
        source="Li et al., arXiv 2006.04388, with the teacher as target",
        summary="the teacher's class scores, most where the student differs",
    ),
    MethodInfo(
        name="boxes",
        tasks=_DETECTION,
        needs=_CELLS,
        weight=20.0,
        cost="next to nothing; caches raw outputs",
        source="Rezatofighi et al., arXiv 1902.09630, weighted by the teacher's score",
        summary="the teacher's boxes where it sees something",
    ),
    MethodInfo(
        name="dense-soft-labels",
        tasks=_DETECTION,
        needs=_CELLS,
        weight=0.03,
        options={"temperature": 2.0},
        cost="next to nothing; caches raw outputs",
        source="Hinton et al., arXiv 1503.02531, class by class",
        summary="the teacher's class scores at every cell, softened, background in full",
    ),
    MethodInfo(
        name="dense-logit-matching",
        tasks=_DETECTION,
        needs=_CELLS,
        weight=0.1,
        cost="next to nothing; caches raw outputs",
        source="Ba and Caruana, arXiv 1312.6184, weighted by the teacher's score",
        summary="the teacher's class logits where it sees something",
    ),
    MethodInfo(
        name="localization",
        tasks=_DETECTION,
        needs=_CELLS | {"objects", "labels"},
        weight=1.0,
        options={"valuable": 1.0, "overlap": 0.5, "min_score": 0.3},
        cost="an overlap of every cell with every object; caches raw outputs and objects",
        source="Zheng et al., arXiv 2102.12252, for boxes without distributions",
        summary="the teacher's boxes where annotation or its own detections make them matter",
    ),
    MethodInfo(
        name="crosskd",
        tasks=_DETECTION,
        needs=_CELLS | {"head"},
        weight=0.3,
        options={"gamma": 1.0, "box_weight": 2.0},
        cost="a pass through the teacher's head and back; caches raw outputs",
        source="Wang et al., arXiv 2306.11369",
        summary="features from which the teacher's own head reads the teacher's detections",
    ),
    MethodInfo(
        name="teacher-boxes",
        tasks=_DETECTION,
        needs=frozenset({"objects"}),
        weight=0.2,
        options={"min_score": 0.3, "soft": 1.0, "box_weight": 2.5},
        cost="a second assignment of objects to cells; caches objects",
        source="Sohn et al., arXiv 2005.04757",
        summary="the detections of any teacher, external detectors included, as if annotated",
    ),
)

_OF_ITSELF = (
    MethodInfo(
        name="raw-outputs",
        tasks=_BOTH,
        needs=_OUTPUTS,
        weight=1.0,
        cost="nothing; caches raw outputs",
        source="Ba and Caruana, arXiv 1312.6184, over every output tensor",
        summary="every raw output of the same network in full precision, whatever it means",
    ),
)

METHODS: dict[str, MethodInfo] = {
    info.name: info for info in (*_CLASSIFIERS, *_FEATURES_OF_BOTH, *_DETECTORS, *_OF_ITSELF)
}
"""Every method, by name."""

_LARGEST = {"mask": 0.95, "min_score": 1.0, "overlap": 1.0, "soft": 1.0}
_SMALLEST = {"temperature": 0.1}


def method_options(name: str, given: Mapping[str, float]) -> dict[str, float]:
    """Returns all options of a method: those given, else their defaults.

    Raises:
        RecipeError: The method or an option is unknown, or a value is out of range.
    """
    if name not in METHODS:
        raise RecipeError(f"unknown distillation method {name!r}{suggest(name, METHODS)}")
    known = METHODS[name].options
    for option, value in given.items():
        if option not in known:
            hint = suggest(option, known) if known else "; it has none"
            raise RecipeError(f"distillation method {name!r} has no option {option!r}{hint}")
        low, high = _SMALLEST.get(option, 0.0), _LARGEST.get(option, 1000.0)
        if not low <= value <= high:
            raise RecipeError(
                f"distillation method {name!r}: {option} {value}: "
                f"must be between {low:g} and {high:g}"
            )
    return {**known, **given}
