"""Records and enumerations that cross a module boundary. Imports nothing from the package.

Conventions, stated once:

* Boxes are ``xyxy`` (left, top, right, bottom), in pixels of the *original* image, float32
  ``(N, 4)``.
* Images are uint8 ``(H, W, C)``; C is 1 (grey) or 3 (RGB).
* Units are in the names (``latency_ms``, ``size_bytes``); MiB and the like appear only on display.
* Labels are contiguous class indices from 0; the class's name is ``Dataset.classes[label]``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
Image = NDArray[np.uint8]
Shape = tuple[int, ...]


UNANNOTATED = -2
"""Ignore label of a region that nobody annotated: hidden from the annotation's loss, not from the
teacher's. As the label of an image it says that its class is not known."""

FEATURES = (4, 8, 16, 32)
"""Strides of edgedet's features: pixels of the input per cell."""

STRIDES = [FEATURES[i:j] for j in range(1, 5) for i in range(j)]
"""What a detector's levels may be: neighbours, finest first."""


class Task(StrEnum):
    """What a model does."""

    DETECTION = "detection"
    CLASSIFICATION = "classification"

    @property
    def metric(self) -> str:
        """The one metric by which models are compared: a field of the task's metrics."""
        return {Task.DETECTION: "map", Task.CLASSIFICATION: "top1"}[self]

    @property
    def metric_title(self) -> str:
        """The same as tables show it."""
        return {Task.DETECTION: "mAP@[.5:.95]", Task.CLASSIFICATION: "top-1"}[self]

    @property
    def family(self) -> str:
        """EdgeKD's own networks for the task."""
        return {Task.DETECTION: "edgedet", Task.CLASSIFICATION: "edgecls"}[self]


class Format(StrEnum):
    """File format of an exported model."""

    ONNX = "onnx"
    TFLITE = "tflite"


class Precision(StrEnum):
    """Number format of weights and activations."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


Form = Literal["board", "host", "peer"]
"""``board``: what ships. ``host``: the same scales as uint8, for x86. ``peer``: another tool's
scales, for comparison."""

Arithmetic = Literal["any", "int8", "uint8"]
"""What ONNX Runtime computes a quantized file in on x86. ``any``: what it likes. ``int8``: int8
activations stay int8, as on Arm, where x86 would turn them into uint8 and fuse only some operators;
slow there. ``uint8``: in full, where a CPU without VNNI would saturate the sum of two products.
Both are exact on every processor."""


def arithmetic_of(precision: Precision, form: Form) -> Arithmetic:
    """Returns what a file must be computed in, so that what runs is what was trained."""
    by_form: dict[Form, Arithmetic] = {"board": "int8", "host": "uint8"}
    return by_form.get(form, "any") if precision is Precision.INT8 else "any"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image and what is annotated in it; pixels are read on demand.

    Attributes:
        image_id: Unique in its dataset, from 1.
        path: File that holds the image.
        frame: Index of the image inside ``path`` where that file holds many (IDX), else None.
        width: Pixels. 0 where it is not known without opening the image.
        height: Pixels. 0 where it is not known without opening the image.
        boxes: ``(N, 4)`` annotated objects; empty for classification.
        labels: ``(N,)`` int64, one per box; for classification ``(1,)``.
        areas: ``(N,)`` float32 pixels², the annotated area (mask area in COCO), else the box's.
        ignore: ``(M, 4)`` crowd and ignore regions, excluded from training and evaluation.
        ignore_labels: ``(M,)`` class that the region hides, -1 for every class, `UNANNOTATED`.
    """

    image_id: int
    path: Path
    frame: int | None = None
    width: int = 0
    height: int = 0
    labels: NDArray[np.int64]
    boxes: Boxes = field(default_factory=lambda: np.empty((0, 4), np.float32))
    areas: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    ignore: Boxes = field(default_factory=lambda: np.empty((0, 4), np.float32))
    ignore_labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something wrong in a dataset: reported, and an error under ``--strict``.

    Attributes:
        kind: Stable identifier, such as ``degenerate-box`` or ``missing-image``.
        path: The file at fault.
        detail: What was found there, with the value.
    """

    kind: str
    path: Path
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One split of a data set. Holds annotations, never pixels.

    Attributes:
        name: Name shown in reports.
        task: Detection or classification.
        split: ``train``, ``val`` or ``test``.
        format: Name of its reader, such as ``coco``.
        root: Folder that every image lies in.
        classes: Names, indexed by label.
        samples: Ordered by image file name (IDX: by frame).
        problems: What was dropped or repaired while reading.
    """

    name: str
    task: Task
    split: str
    format: str
    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Detections:
    """Detections in one image, best first: boxes ``(N, 4)``, scores ``(N,)`` in [0, 1], labels."""

    boxes: Boxes
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Priors:
    """Square priors of an SSD whose file ends at its heads.

    Attributes:
        strides: Pixels of the input per cell, one a level.
        sizes: Sides in pixels of the priors in one cell, for every level.
    """

    strides: tuple[int, ...]
    sizes: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        smallest = [min(level, default=0) for level in self.sizes]
        paired = 0 < len(self.strides) == len(self.sizes)
        if not paired or min(self.strides) < 1 or min(smallest) <= 0:
            raise ValueError(
                f"strides {list(self.strides)}, sizes {[list(level) for level in self.sizes]}; "
                "legal: for every stride a list of one or more sizes, all above 0"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class InputContract:
    """How an image becomes the model's input.

    The image is letterboxed (aspect kept, bilinear with antialiasing, centred, padding
    ``pad_value``) or stretched to ``height x width``; ``real = (pixel - mean) / std``; an integer
    input holds ``round(real / scale) + zero_point``.
    """

    height: int
    width: int
    channels: int
    layout: Literal["NCHW", "NHWC"]
    dtype: Literal["float32", "int8", "uint8"]
    mean: float = 128.0
    std: float = 128.0
    scale: float | None = None
    zero_point: int | None = None
    resize: Literal["letterbox", "stretch"] = "letterbox"
    pad_value: int = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputContract:
    """One output tensor: what it holds and how to turn integers into reals.

    Attributes:
        name: Tensor name in the file.
        role: ``scores`` (class logits), ``boxes`` (raw dx, dy, log w, log h, or what the decoder
            says), ``logits`` (classification), or another name that the decoder knows.
        stride: Pixels of the input per cell; 0 where an output is no level.
        shape: With the batch dimension; 0 where a length is only known after the run.
    """

    name: str
    role: str
    stride: int
    shape: tuple[int, ...]
    layout: Literal["NCHW", "NHWC", "NC", "any"]
    dtype: Literal["float32", "int8", "uint8", "int64"]
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """An exported model file and everything needed to run it without asking.

    Attributes:
        form: See `Form`.
    """

    path: Path
    format: Format
    precision: Precision
    form: Form
    task: Task
    target: str
    classes: tuple[str, ...]
    input: InputContract
    outputs: tuple[OutputContract, ...]
    sha256: str
    size_bytes: int
    parameters: int
    macs: int

    @property
    def has_tail(self) -> bool:
        """Whether decoding and NMS are inside the file."""
        return any(output.role == "labels" for output in self.outputs)
