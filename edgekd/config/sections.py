"""The sections of a recipe: what every stage can be told, with its default and its legal values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.core.types import Format, Priors


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raises ``ValueError`` where a value lies outside of its range, ends included."""
    if not low <= value <= high:
        raise ValueError(f"{name} {value}: must be between {low:g} and {high:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSection:
    """The data set.

    Attributes:
        path: Folder (or COCO file); null for the built-in rendered demo set.
        format: Name of its format, such as ``coco``; null recognises it.
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
    format: str | None = None
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
        width: Pixels, by the same rule.
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
            in_range(name, getattr(self, name), 0, 1)
        in_range("shift", self.shift, 0, 0.5)
        for name in ("stretch", "brightness", "gamma", "colour"):
            in_range(name, getattr(self, name), 0, 0.9)


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
        if any(value == 0 for value in self.std):
            raise ValueError(f"std {list(self.std)}: must not be 0")


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
        in_range("proof_images", self.proof_images, 1, 10**5)
        in_range("tail_score", self.tail_score, 1e-3, 0.999)


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
        in_range("threads", self.threads, 1, 256)
        in_range("warmup", self.warmup, 5, 10**5)
        in_range("runs", self.runs, 50, 10**6)
        in_range("seconds", self.seconds, 0.0, 600.0)
        in_range("bootstrap", self.bootstrap, 100, 10**5)


@dataclass(frozen=True, kw_only=True, slots=True)
class GatesSection:
    """What an int8 file must keep to before it may be released; null demands nothing.

    A drop is counted in points of 100 against the float student that was trained as long.

    Attributes:
        max_map_drop: Of mAP or, for a classifier, of top-1.
        max_class_drop: Of the class that loses most.
        max_latency_ms: Median on the target: measured where the target is this computer, otherwise
            predicted; the report says which.
        budget_ms: The same for the fastest file that ships alone; set by ``student.budget_ms``.
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
            in_range(name, getattr(self, name) or 0, 0, 100)
        for name in ("max_latency_ms", "budget_ms", "max_size_bytes", "max_memory_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} {value}: must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSection:
    """What the report shows.

    Attributes:
        visualisations: Validation images shown side by side.
        regressions: Validation images shown that int8 made worse.
    """

    visualisations: int = 6
    regressions: int = 4
