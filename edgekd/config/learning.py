"""The sections of a recipe that say how a student learns and is made integer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekd.config.sections import in_range
from edgekd.core.types import STRIDES


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
        in_range("steps", self.steps, 1, 10**8)
        in_range("batch_size", self.batch_size, 1, 4096)
        in_range("learning_rate", self.learning_rate, 1e-9, 10)
        for name in ("final_rate", "weight_decay", "warmup"):
            in_range(name, getattr(self, name), 0, 1)
        in_range("ema", self.ema, 0, 0.99999)


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
        in_range("cache_views", self.cache_views, 0, 10**5)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentSection:
    """The network that ships.

    Attributes:
        architecture: ``edgedet-n|s|m|l`` or ``edgecls-n|s|m|l``, with a number for another width
            (``edgedet-n0.75``); ``same`` for the teacher itself, which is then only made integer;
            or ``my_model.py:function``.
        strides: Pyramid levels; add 4 where objects are smaller than about 8 pixels of the input.
        pretrained: Start from the weights that EdgeKD ships for the architecture, where there are
            some (``edgedet-n``), instead of random ones.
        checkpoint: Start from these weights instead, as far as names and shapes agree: another
            set's classes, channels and levels may differ.
        budget_ms: Predicted latency on the target, for which width, depth and input size are
            chosen before training; the architecture then only names the family.
    """

    architecture: str = "edgedet-n"
    strides: tuple[int, ...] = (8, 16, 32)
    pretrained: bool = True
    checkpoint: Path | None = None
    budget_ms: float | None = None

    def __post_init__(self) -> None:
        if self.budget_ms is not None and self.budget_ms <= 0:
            raise ValueError(f"budget_ms {self.budget_ms}: must be above 0")
        if self.strides not in STRIDES:
            raise ValueError(f"strides {list(self.strides)}: neighbours of 4, 8, 16, 32, rising")


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodConfig:
    """One distillation method as a run uses it.

    Attributes:
        weight: Beside the task loss.
        options: Every option of the method.
    """

    weight: float
    options: dict[str, float]


DEFAULT_METHODS: dict[str, dict[str, float]] = {
    "detection": {"logits": 10.0, "boxes": 20.0, "pkd": 4.0},
    "classification": {"logit-matching": 0.2},
    "detections-only": {"teacher-boxes": 0.2},
    "custom": {"raw-outputs": 1.0},
}
"""Methods, with their weights, where a recipe names none: for EdgeKD's detectors, for classifiers,
for a detector whose teachers give boxes alone, and for a detector of which only the raw outputs are
known."""


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
        in_range("task_weight", self.task_weight, 0, 1e6)


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
        in_range("calibration_images", self.calibration_images, 1, 10**6)
        in_range("tuning_images", self.tuning_images, 1, 10**6)
        if self.mode == "none" and (self.tune or self.keep_float):
            raise ValueError("mode none: every layer is in float; tune and keep_float are for int8")
        if self.tune and self.keep_float:
            raise ValueError("tune finds the layers that keep_float names; give one of the two")
        in_range("freeze_ranges", self.freeze_ranges, 0, 1)
        if self.training.precision == "bfloat16":
            raise ValueError(
                "training.precision bfloat16: QAT is trained in float32, a fake-quantized value "
                "needs more digits than bfloat16 has"
            )
