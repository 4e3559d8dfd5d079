"""The recipe: one YAML file that says everything about a run, one section a stage.

Unknown keys are errors that suggest the nearest; every default is visible in what `edgekd init`
writes. Nothing here imports torch, so a wrong recipe fails in the first second.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from edgekd.errors import RecipeError
from edgekd.strict import from_mapping, to_mapping
from edgekd.types import Format, Task
from edgekd.yamlfile import read_yaml


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
    """

    path: Path | None = None
    format: Literal["coco", "yolo", "voc", "folder", "idx"] | None = None
    train: str = "train"
    val: str = "val"
    ignore_classes: tuple[str, ...] = ()
    strict: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSection:
    """What the student sees. The teacher is shown the same pixels in its own normalisation.

    Attributes:
        height: Pixels, a multiple of the largest stride (32).
        width: Pixels, a multiple of the largest stride (32).
        channels: 1 (grey) or 3 (RGB).
    """

    height: int = 320
    width: int = 320
    channels: int = 3

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < 32 or value % 32:
                raise ValueError(f"{name} {value}: must be a multiple of 32, such as 192 or 320")
        if self.channels not in (1, 3):
            raise ValueError(f"channels {self.channels}: legal are 1 (grey) and 3 (RGB)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What a training view may look like.

    Attributes:
        scale: Range of the zoom, relative to the letterboxed image.
        stretch: Largest relative change of the aspect ratio.
        mosaic: Probability that a view is tiled from four images.
        horizontal_flip: Probability of a left-right flip.
        vertical_flip: Probability of an up-down flip; for cameras that look straight down.
        brightness: Largest relative change of the gain.
        gamma: Largest relative change of the gamma.
        colour: Largest relative change of one channel's gain.
    """

    scale: tuple[float, float] = (0.7, 1.5)
    stretch: float = 0.1
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
        precision: Of the networks' convolutions: ``float32``; ``bfloat16``, which a CPU with
            AVX512-BF16 or AMX runs nearly twice as fast; ``auto`` takes bfloat16 on a GPU only.
            Losses, weights and their averages are float32 throughout.
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
        checkpoint: A ``.safetensors`` file from ``edgekd train``; null for the demo set's own.
    """

    checkpoint: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentSection:
    """The network that ships.

    Attributes:
        architecture: ``edgedet-n|s|m|l`` or ``edgecls-n|s|m|l``.
        strides: Pyramid levels; add 4 where objects are smaller than about 8 pixels of the input.
        checkpoint: Start from these weights instead of random ones, as far as names and shapes
            agree: another set's classes, channels and levels may differ.
    """

    architecture: str = "edgedet-n"
    strides: tuple[int, ...] = (8, 16, 32)
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        if tuple(sorted(set(self.strides) & {4, 8, 16, 32})) != self.strides or not self.strides:
            raise ValueError(f"strides {list(self.strides)}: a rising choice of 4, 8, 16, 32")
        if len(self.strides) != self.strides[-1].bit_length() - self.strides[0].bit_length() + 1:
            raise ValueError(f"strides {list(self.strides)}: must not skip a level")


DEFAULT_METHODS: dict[Task, dict[str, float]] = {
    Task.DETECTION: {"logits": 1.0, "boxes": 2.0, "pkd": 4.0},
    Task.CLASSIFICATION: {"soft-labels": 1.0},
}
"""Distillation methods and weights where a recipe names none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSection:
    """How the student learns from the teacher.

    Attributes:
        methods: Method name to weight beside the task loss; empty to learn from annotation alone,
            null for those of `DEFAULT_METHODS`.
        training: The loop.
        baseline: Whether to train the same student without the teacher too, for equal steps, so
            that the report can say what distillation is worth.
    """

    methods: dict[str, float] | None = None
    training: FitOptions = field(default_factory=FitOptions)
    baseline: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeSection:
    """How the student becomes integer.

    Attributes:
        mode: ``qat`` trains with fake-quantization and the teacher's signal; ``ptq`` calibrates
            the same quantizer instead.
        training: The QAT loop. The rate is low because batch norm is folded away before it.
        calibration_images: Training images that set the first ranges.
        freeze_ranges: Share of the QAT steps after which activation ranges no longer move.
        float_control: Whether to train the float student for the same extra steps without
            fake-quantization: what int8 really costs is measured against that.
    """

    mode: Literal["qat", "ptq"] = "qat"
    training: FitOptions = field(
        default_factory=lambda: FitOptions(
            steps=600,
            learning_rate=2e-4,
            warmup=0.1,
            weight_decay=0.0,
            ema=0.0,
            precision="float32",
        )
    )
    calibration_images: int = 128
    freeze_ranges: float = 0.6
    float_control: bool = True

    def __post_init__(self) -> None:
        _in_range("calibration_images", self.calibration_images, 1, 10**6)
        _in_range("freeze_ranges", self.freeze_ranges, 0, 1)
        if self.training.precision != "float32":
            raise ValueError(
                f"training.precision {self.training.precision}: must be float32, a fake-quantized "
                "value needs more digits than bfloat16 has"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSection:
    """Which files are written and how they are proven.

    Attributes:
        formats: ``onnx``, ``tflite`` or both.
        proof_images: Real validation images that parity is measured on.
    """

    formats: tuple[Format, ...] = (Format.ONNX, Format.TFLITE)
    proof_images: int = 16

    def __post_init__(self) -> None:
        if not self.formats:
            raise ValueError("formats: name at least one of onnx, tflite")
        _in_range("proof_images", self.proof_images, 1, 10**5)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkSection:
    """How files are measured.

    Attributes:
        threads: Of the runtime; pinned.
        warmup: Untimed runs before.
        runs: Timed runs.
        bootstrap: Resamples of the paired intervals.
    """

    threads: int = 1
    warmup: int = 10
    runs: int = 100
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        _in_range("threads", self.threads, 1, 256)
        _in_range("warmup", self.warmup, 5, 10**5)
        _in_range("runs", self.runs, 50, 10**6)
        _in_range("bootstrap", self.bootstrap, 100, 10**5)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSection:
    """What the report shows.

    Attributes:
        exhibits: Validation images shown side by side.
    """

    exhibits: int = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything about one run.

    Attributes:
        target: Device id (``edgekd devices``) or path of a device YAML.
        seed: Of initial weights, data order and augmentation.
    """

    target: str = "jetson"
    seed: int = 0
    data: DataSection = field(default_factory=DataSection)
    input: InputSection = field(default_factory=InputSection)
    augmentation: Augmentation = field(default_factory=Augmentation)
    teacher: TeacherSection = field(default_factory=TeacherSection)
    student: StudentSection = field(default_factory=StudentSection)
    distill: DistillSection = field(default_factory=DistillSection)
    quantize: QuantizeSection = field(default_factory=QuantizeSection)
    export: ExportSection = field(default_factory=ExportSection)
    benchmark: BenchmarkSection = field(default_factory=BenchmarkSection)
    report: ReportSection = field(default_factory=ReportSection)


def load_recipe(path: Path) -> Recipe:
    """Returns the recipe in a YAML file; paths in it are relative to its folder.

    Raises:
        RecipeError: The file is missing, is not YAML, or a key or value is not legal.
    """
    recipe = from_mapping(Recipe, read_yaml(path, RecipeError), str(path), RecipeError)
    return _anchored(recipe, path.parent)


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Returns the recipe with dotted keys (``quantize.training.steps``) set to plain values.

    Raises:
        RecipeError: A key does not exist or a value is not legal there.
    """
    data = to_mapping(recipe)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        place = data
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise RecipeError(f"{dotted}: {section!r} is a value, not a section")
        place[key] = value
    return from_mapping(Recipe, data, "command line", RecipeError)


def dump_recipe(recipe: Recipe) -> str:
    """Returns the recipe as YAML with every default spelt out."""
    return yaml.safe_dump(to_mapping(recipe), sort_keys=False, allow_unicode=True)


def _anchored(recipe: Recipe, folder: Path) -> Recipe:
    def anchor(path: Path | None) -> Path | None:
        return path if path is None or path.is_absolute() else folder / path

    return replace(
        recipe,
        data=replace(recipe.data, path=anchor(recipe.data.path)),
        teacher=replace(recipe.teacher, checkpoint=anchor(recipe.teacher.checkpoint)),
        student=replace(recipe.student, checkpoint=anchor(recipe.student.checkpoint)),
    )
