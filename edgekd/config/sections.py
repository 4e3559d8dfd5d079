"""The sections of a recipe: what every stage can be told, with its default and its legal values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekd.config.methods import METHODS, method_options
from edgekd.core.errors import suggest
from edgekd.core.types import STRIDES, Format, Priors
from edgekd.standalone.decoder import DECODERS


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} {value}: must be between {low:g} and {high:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSection:
    """The data set.

    Attributes:
        path: Folder (or COCO file); null for the built-in rendered demo set.
        format: coco, yolo, voc, folder or idx; null recognises it.
        train: Split to learn from.
        val: Split that every figure in the report comes from.
        ignore_classes: Classes that mark regions to leave out of training and evaluation.
        strict: Whether any problem found while reading is an error.
        unlabelled: Folder of more training images that nobody annotated; they are learnt from
            through the teacher alone.
        licence: Of the data, as the bundle shall state it; null for the text of a LICENSE file in
            the folder.
    """

    path: Path | None = None
    format: Literal["coco", "yolo", "voc", "folder", "idx"] | None = None
    train: str = "train"
    val: str = "val"
    ignore_classes: tuple[str, ...] = ()
    strict: bool = False
    unlabelled: Path | None = None
    licence: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSection:
    """What the student sees. The teacher is shown the same pixels in its own normalisation.

    Attributes:
        height: Pixels; for a detector of EdgeKD's a multiple of the largest stride (32).
        width: Likewise.
        channels: 1 (grey) or 3 (RGB).
    """

    height: int = 320
    width: int = 320
    channels: int = 3

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if not 8 <= value <= 8192:
                raise ValueError(f"{name} {value}: must be between 8 and 8192 pixels")
        if self.channels not in (1, 3):
            raise ValueError(f"channels {self.channels}: legal are 1 (grey) and 3 (RGB)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What a training view may look like.

    Attributes:
        scale: Range of the zoom, relative to the letterboxed image.
        stretch: Largest relative change of the aspect ratio.
        shift: Largest move of the view, as a share of its size; the image's edge is repeated where
            the move uncovers something. For classifiers: 0.125 is four pixels of 32.
        mosaic: Probability that a view is tiled from four images.
        horizontal_flip: Probability of a left-right flip.
        vertical_flip: Probability of an up-down flip; for cameras that look straight down.
        brightness: Largest relative change of the gain.
        gamma: Largest relative change of the gamma.
        colour: Largest relative change of one channel's gain.
    """

    scale: tuple[float, float] = (0.7, 1.5)
    stretch: float = 0.1
    shift: float = 0.0
    mosaic: float = 0.0
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    brightness: float = 0.25
    gamma: float = 0.2
    colour: float = 0.08

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale {list(self.scale)}: must be two numbers, 0 < low <= high")
        for name in ("mosaic", "horizontal_flip", "vertical_flip"):
            _in_range(name, getattr(self, name), 0, 1)
        _in_range("shift", self.shift, 0, 0.5)
        for name in ("stretch", "brightness", "gamma", "colour"):
            _in_range(name, getattr(self, name), 0, 0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    """How to train.

    Attributes:
        steps: Optimizer steps in all.
        batch_size: Images a step.
        learning_rate: Peak, after warm-up.
        final_rate: Share of the peak that the cosine ends at.
        weight_decay: AdamW's, for weights with two or more dimensions.
        warmup: Share of the steps with a rising rate.
        clip: Largest gradient norm.
        ema: Decay of the moving average of the weights; 0 keeps the last weights.
        seed: Of data order and augmentation.
        checkpoint_s: Seconds between checkpoints.
        workers: Processes that prepare views; None chooses.
        precision: Of the networks' convolutions: ``float32``; ``bfloat16``, which a GPU, an Intel
            CPU with AMX or an AMD CPU with AVX512-BF16 runs faster, and other x86 CPUs slower, most
            of them many times; ``auto`` takes what is fast here. Losses, weights and their averages
            are float32 throughout, and so is all of quantization-aware training.
    """

    steps: int = 3000
    batch_size: int = 16
    learning_rate: float = 2e-3
    final_rate: float = 0.02
    weight_decay: float = 0.02
    warmup: float = 0.05
    clip: float = 10.0
    ema: float = 0.998
    seed: int = 0
    checkpoint_s: float = 30.0
    workers: int | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        _in_range("steps", self.steps, 1, 10**8)
        _in_range("batch_size", self.batch_size, 1, 4096)
        _in_range("learning_rate", self.learning_rate, 1e-9, 10)
        for name in ("final_rate", "weight_decay", "warmup"):
            _in_range(name, getattr(self, name), 0, 1)
        _in_range("ema", self.ema, 0, 0.99999)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSection:
    """Where the distillation signal comes from.

    Attributes:
        model: A ``.safetensors`` file from ``edgekd train``; a ``.yaml`` that declares an ONNX or
            TFLite detector and its decoder; or ``my_model.py:function``, which returns a
            ``torch.nn.Module``. Null for the one that EdgeKD ships for these classes.
        weights: State dict (``.safetensors``, or ``.pth`` read without unpickling code) of a
            ``my_model.py:function``.
        others: More teachers, in the same forms; what they say is averaged, and what they detect
            put together.
        resolution: ``own`` shows the teachers the same view at the first one's input size where
            that is another than the student's; ``student`` shows them what the student sees.
        cache_views: Keep what the teachers say about so many fixed views an image and train from
            that; 0 asks them anew about a new view every epoch.
        cache: Folder of that cache, shared between runs; null for ``teacher-cache`` beside the run.
        precision: In which a cache is filled: ``float32``, ``bfloat16`` or ``auto``, which takes
            what is fast here.
        licence: Of the teacher, as the bundle shall state it.
    """

    model: str | None = None
    weights: Path | None = None
    others: tuple[str, ...] = ()
    resolution: Literal["own", "student"] = "own"
    cache_views: int = 0
    cache: Path | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    licence: str | None = None

    def __post_init__(self) -> None:
        _in_range("cache_views", self.cache_views, 0, 10**5)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSection:
    """What EdgeKD cannot know about a network of your own (``my_model.py:function``).

    Attributes:
        mean: Subtracted from a pixel in 0..255: one number, or one a channel.
        std: Then divided by.
        colour: Order of the channels that the network was trained with.
        resize: ``letterbox`` keeps the aspect ratio, ``stretch`` does not.
        decoder: How `edgekd.standalone.decoder` reads its outputs; null for a classifier, or for a
            detector whose outputs shall only be reproduced.
        priors: Strides and sizes of prior boxes, for the decoder ``ssd-raw``.
    """

    mean: tuple[float, ...] = (128.0,)
    std: tuple[float, ...] = (128.0,)
    colour: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["letterbox", "stretch"] = "letterbox"
    decoder: str | None = None
    priors: Priors | None = None

    def __post_init__(self) -> None:
        if self.decoder is not None and self.decoder not in DECODERS:
            raise ValueError(f"decoder {self.decoder!r}{suggest(self.decoder, DECODERS)}")
        if any(value == 0 for value in self.std):
            raise ValueError(f"std {list(self.std)}: must not be 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentSection:
    """The network that ships.

    Attributes:
        architecture: ``edgedet-n|s|m|l`` or ``edgecls-n|s|m|l``, with a number for another width
            (``edgedet-n0.75``); ``same`` for the teacher itself, which is then only made integer;
            or ``my_model.py:function``.
        strides: Pyramid levels; add 4 where objects are smaller than about 8 pixels of the input.
        checkpoint: Start from these weights instead of random ones, as far as names and shapes
            agree: another set's classes, channels and levels may differ.
        budget_ms: Predicted latency on the target, for which width, depth and input size are
            chosen before training; the architecture then only names the family.
    """

    architecture: str = "edgedet-n"
    strides: tuple[int, ...] = (8, 16, 32)
    checkpoint: Path | None = None
    budget_ms: float | None = None

    def __post_init__(self) -> None:
        if self.budget_ms is not None and self.budget_ms <= 0:
            raise ValueError(f"budget_ms {self.budget_ms}: must be above 0")
        if self.strides not in STRIDES:
            raise ValueError(f"strides {list(self.strides)}: neighbours of 4, 8, 16, 32, rising")


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodChoice:
    """One distillation method as a run uses it.

    Attributes:
        weight: Beside the task loss.
        options: Every option of the method.
    """

    weight: float
    options: dict[str, float]


DEFAULT_METHODS: dict[str, tuple[str, ...]] = {
    "detection": ("logits", "boxes", "pkd"),
    "classification": ("logit-matching",),
    "objects": ("teacher-boxes",),
    "own": ("raw-outputs",),
}
"""Methods where a recipe names none: for EdgeKD's detectors, for classifiers, for a detector whose
teachers give boxes alone, and for a detector of which only the raw outputs are known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSection:
    """How the student learns from the teacher.

    Attributes:
        methods: Method (``edgekd methods``) to its weight beside the task loss, or to a mapping of
            ``weight`` and the method's options; empty to learn from annotation alone, null for
            the defaults of the task.
        task_weight: Of the loss on annotation beside a teacher; 0 learns from the teacher alone.
        training: The loop.
        baseline: Whether to train the same student without the teacher too, for equal steps, so
            that the report can say what distillation is worth.
    """

    methods: dict[str, float | dict[str, float]] | None = None
    task_weight: float = 1.0
    training: FitOptions = field(default_factory=FitOptions)
    baseline: bool = False

    def __post_init__(self) -> None:
        self.choices(["detection"])
        _in_range("task_weight", self.task_weight, 0, 1e6)

    def choices(self, cases: Sequence[str]) -> dict[str, MethodChoice]:
        """Returns the methods with their weights and options.

        Args:
            cases: Keys of `DEFAULT_METHODS`, for a recipe that names none.

        Raises:
            RecipeError: A method or an option is unknown.
        """
        named = self.methods
        if named is None:
            named = {n: METHODS[n].weight for case in cases for n in DEFAULT_METHODS[case]}
        chosen = {}
        for name, value in named.items():
            given = dict(value) if isinstance(value, dict) else {"weight": value}
            options = method_options(name, {k: v for k, v in given.items() if k != "weight"})
            chosen[name] = MethodChoice(
                weight=given.get("weight", METHODS[name].weight), options=options
            )
        return chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeSection:
    """How the student becomes integer.

    Attributes:
        mode: ``qat`` trains with fake-quantization and the teacher's signal; ``ptq`` calibrates
            the same quantizer instead; ``none`` leaves int8 out: float32 files and, where the
            device computes in it, float16.
        training: The QAT loop. The rate is low because batch norm is folded away before it.
        calibration_images: Training images that set the first ranges.
        freeze_ranges: Share of the QAT steps after which activation ranges no longer move.
        float_control: Whether to train the float student for the same extra steps without
            fake-quantization: what int8 really costs is measured against that.
        keep_float: Layers that stay in float, by the names that ``edgekd quantize --analyze``
            lists. Neighbours, since a layer alone between integer ones gains nothing.
        tune: Whether to find the fewest such layers that keep to ``gates.max_map_drop``.
        tuning_images: Training images that tuning judges by.
    """

    mode: Literal["qat", "ptq", "none"] = "qat"
    training: FitOptions = field(
        default_factory=lambda: FitOptions(
            steps=600,
            learning_rate=2e-4,
            warmup=0.1,
            weight_decay=0.0,
            ema=0.0,
        )
    )
    calibration_images: int = 128
    freeze_ranges: float = 0.6
    float_control: bool = True
    keep_float: tuple[str, ...] = ()
    tune: bool = False
    tuning_images: int = 256

    def __post_init__(self) -> None:
        _in_range("calibration_images", self.calibration_images, 1, 10**6)
        _in_range("tuning_images", self.tuning_images, 1, 10**6)
        if self.mode == "none" and (self.tune or self.keep_float):
            raise ValueError("mode none: every layer is in float; tune and keep_float are for int8")
        if self.tune and self.keep_float:
            raise ValueError("tune finds the layers that keep_float names; give one of the two")
        _in_range("freeze_ranges", self.freeze_ranges, 0, 1)
        if self.training.precision == "bfloat16":
            raise ValueError(
                "training.precision bfloat16: QAT is trained in float32, a fake-quantized value "
                "needs more digits than bfloat16 has"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSection:
    """Which files are written and how they are proven.

    Attributes:
        formats: ``onnx``, ``tflite`` or both.
        proof_images: Real validation images that parity is measured on.
        detection_tail: Whether to write ONNX files too that end in boxes, scores and labels after
            NMS, for a runtime that shall do it all; the tail computes in float32.
        tail_score: Detections under it are not returned by such a file.
        neural_compressor: Whether to write ``int8-nc.onnx`` too, as neural-compressor's own
            calibration makes it, for comparison on x86: not proven, not judged, not bundled.
    """

    formats: tuple[Format, ...] = (Format.ONNX, Format.TFLITE)
    proof_images: int = 16
    detection_tail: bool = False
    tail_score: float = 0.05
    neural_compressor: bool = False

    def __post_init__(self) -> None:
        if not self.formats:
            raise ValueError("formats: name at least one of onnx, tflite")
        if self.neural_compressor and Format.ONNX not in self.formats:
            raise ValueError("neural_compressor: what it makes is ONNX; add onnx to formats")
        _in_range("proof_images", self.proof_images, 1, 10**5)
        _in_range("tail_score", self.tail_score, 1e-3, 0.999)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkSection:
    """How files are measured.

    Attributes:
        threads: Of the runtime; pinned.
        warmup: Untimed runs before.
        runs: Timed runs, at least.
        seconds: That they take, at least.
        bootstrap: Resamples of the paired intervals.
    """

    threads: int = 1
    warmup: int = 10
    runs: int = 100
    seconds: float = 1.0
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        _in_range("threads", self.threads, 1, 256)
        _in_range("warmup", self.warmup, 5, 10**5)
        _in_range("runs", self.runs, 50, 10**6)
        _in_range("seconds", self.seconds, 0.0, 600.0)
        _in_range("bootstrap", self.bootstrap, 100, 10**5)


@dataclass(frozen=True, kw_only=True, slots=True)
class GatesSection:
    """What an int8 file must keep to before it may be released; null demands nothing.

    A drop is counted in points of 100 against the float student that was trained as long.

    Attributes:
        max_map_drop: Of mAP or, for a classifier, of top-1.
        max_class_drop: Of the class that loses most.
        max_latency_ms: Median on the target: measured where the target is this computer, otherwise
            predicted; the report says which.
        budget_ms: Likewise, of the fastest file that ships alone; set by ``student.budget_ms``.
        max_size_bytes: Of the file.
        max_memory_bytes: That a process needs more while it opens and runs the file, measured here.
    """

    max_map_drop: float | None = None
    max_class_drop: float | None = None
    max_latency_ms: float | None = None
    budget_ms: float | None = None
    max_size_bytes: int | None = None
    max_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_map_drop", "max_class_drop"):
            _in_range(name, getattr(self, name) or 0, 0, 100)
        for name in ("max_latency_ms", "budget_ms", "max_size_bytes", "max_memory_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} {value}: must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSection:
    """What the report shows.

    Attributes:
        exhibits: Validation images shown side by side.
        setbacks: Validation images shown that int8 made worse.
    """

    exhibits: int = 6
    setbacks: int = 4
