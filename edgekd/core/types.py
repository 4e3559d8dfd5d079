"""Records and enumerations that cross a module boundary. Imports nothing from the package.

Conventions, stated once:

* Boxes are ``xyxy`` (left, top, right, bottom), in pixels of the *original* image, float32
  ``(N, 4)``.
* Images are uint8 ``(H, W, C)``; C is 1 (grey) or 3 (RGB).
* Units are in the names (``latency_ms``, ``size_bytes``); MiB and the like appear only on display.
* Labels are contiguous class indices from 0; the class's name is ``Dataset.classes[label]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
Image = NDArray[np.uint8]


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


FAMILIES = {Task.DETECTION: "edgedet", Task.CLASSIFICATION: "edgecls"}
"""EdgeKD's own networks for each task."""


class Format(StrEnum):
    """File format of an exported model."""

    ONNX = "onnx"
    TFLITE = "tflite"


class Precision(StrEnum):
    """Number format of weights and activations."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


class Basis(StrEnum):
    """Where a number comes from. The two never share a column."""

    MEASURED = "measured"
    PREDICTED = "predicted"


Form = Literal["board", "host", "peer"]
"""``board``: what ships. ``host``: the same scales as uint8, for x86. ``peer``: another tool's
scales, for comparison."""

Arithmetic = Literal["any", "int8", "uint8", "unfused"]
"""What ONNX Runtime computes a quantized file in on x86. ``any``: what it likes. ``int8``: int8
activations stay int8, as on Arm, where x86 would turn them into uint8 and fuse only some operators;
slow there. ``uint8``: in full, where a CPU without VNNI would saturate the sum of two products.
Both are exact on every processor. ``unfused``: every operator by itself, in float between its Q and
DQ: slow, and rounding as nothing else does."""


def arithmetic_of(precision: Precision, form: Form) -> Arithmetic:
    """Returns what a file must be computed in, so that what runs is what was trained."""
    by_form: dict[Form, Arithmetic] = {"board": "int8", "host": "uint8"}
    return by_form.get(form, "any") if precision is Precision.INT8 else "any"


PEER = "int8-onnx-nc"
"""Key of the row of neural-compressor's file, which is for comparison and never ships."""


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
    boxes: Boxes
    labels: NDArray[np.int64]
    areas: NDArray[np.float32]
    ignore: Boxes
    ignore_labels: NDArray[np.int64]


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
        format: ``coco``, ``yolo``, ``voc``, ``folder`` or ``idx``.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """One latency figure with all that is needed to judge it.

    Attributes:
        basis: ``measured`` or ``predicted``.
        where: Host name of the CPU model, or device id.
        runtime: ``onnxruntime``, ``litert``, ``tflite-runtime``; for a prediction the runtime that
            it stands for.
        note: For a prediction how far it can be trusted, such as ``uncalibrated``.
        median_ms: Inference only. So are p90 and p99 (None for a prediction).
        pre_ms: Median of reading the pixels into the input tensor, None for a prediction.
        post_ms: Median of decoding and NMS, None for a prediction.
        low_ms: Lower end of a prediction's interval, None for a measurement.
        high_ms: Upper end of a prediction's interval, None for a measurement.
        conditions: Governor, temperature, load and the like, where known.
    """

    basis: Basis
    where: str
    runtime: str
    runtime_version: str
    delegate: str
    threads: int
    median_ms: float
    p90_ms: float | None = None
    p99_ms: float | None = None
    runs: int = 0
    pre_ms: float | None = None
    post_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    note: str = ""
    conditions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionMetrics:
    """COCO metrics in [0, 1], higher is better; -1 where no annotated object falls in the bin."""

    map: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    per_class: dict[str, float]
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassificationMetrics:
    """Accuracies in [0, 1], higher is better."""

    top1: float
    top5: float
    per_class: dict[str, float]
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A difference and its paired bootstrap interval over images, in the metric's own unit."""

    value: float
    low: float
    high: float
    confidence: float = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One proof of an exported file, with its mark.

    Attributes:
        name: Such as ``parity/operators/tflite`` or ``coverage/onnx``.
        passed: Whether the mark was reached.
        figure: What was measured, in one line.
        mark: What was demanded, in one line.
        culprit: First operator that breaks the mark, None where it passed.
        details: JSON-ready figures behind the line (histograms, islands, per operator).
    """

    name: str
    passed: bool
    figure: str
    mark: str
    culprit: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorCost:
    """What an operator is predicted to take.

    Attributes:
        native: Operator type in the file.
        precision: What it computes in there.
        output: Shape of its first output.
        share: Of the network's latency, in [0, 1].
        cheaper: What would take less, with what it would save; empty where nothing simple would.
    """

    name: str
    native: str
    precision: Precision
    output: tuple[int, ...]
    ms: float
    share: float
    cheaper: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRow:
    """One model in the result table: a network before export, or an exported file.

    Attributes:
        key: Stable identifier: ``teacher``, ``student-no-kd``, ``student``, ``student-float``
            (trained for the same extra steps as QAT, without fake-quantization), ``float-onnx``,
            ``float-tflite``, ``int8-onnx``, ``int8-tflite``, ``int8-onnx-host``.
        name: Shown in tables.
        runtime: What computed the metrics (``torch``, ``onnxruntime 1.31.1``, ``litert 2.3.0``).
        precision: Number format.
        size_bytes: Of the file; for a network before export, of its float32 parameters.
        metrics: Accuracy on the validation split, computed by ``runtime``.
        measured: Latency measured, None where nothing was timed.
        predicted: Latency predicted for the target, None where there is no prediction.
        everywhere: Latency predicted for every profile that executes the file, least first.
        operators: What each is predicted to take on the target, dearest first.
        memory_bytes: How far the resident memory of a process rises while it opens and runs the
            file, measured where the run was made; None where that was not measured.
    """

    key: str
    name: str
    runtime: str
    precision: Precision
    parameters: int
    macs: int
    size_bytes: int
    path: str | None
    metrics: DetectionMetrics | ClassificationMetrics | None
    measured: Latency | None = None
    predicted: Latency | None = None
    everywhere: tuple[Latency, ...] = ()
    operators: tuple[OperatorCost, ...] = ()
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One demand on an exported file before it may be released, and whether it was met.

    Attributes:
        name: ``map-drop``, ``class-drop``, ``latency``, ``size`` or ``memory``.
        model: Name of the file's row.
        limit: What was allowed, with its unit.
        found: What the file has, and on what ground: measured or predicted, compared with what.
    """

    name: str
    model: str
    passed: bool
    limit: str
    found: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A difference between two rows of the table, ``minus`` subtracted from ``of``."""

    of: str
    minus: str
    metric: str
    interval: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Exhibit:
    """One validation image and what several models saw in it, for the side-by-side plot."""

    image: Path
    classes: tuple[str, ...]
    truth: Detections
    detections: dict[str, Detections]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setback:
    """One validation image that int8 answers worse than float does.

    Attributes:
        image: Path.
        of: Key of the int8 row.
        minus: Key of the float row.
        lost: Of the image's own mAP or, for a classifier, of the true class's probability; in
            [0, 1], above 0.
        said: What each of them answered, in one line.
        exhibit: Both sets of detections; None for a classifier.
        frame: Of the image in its file, where that holds many (IDX).
    """

    image: Path
    of: str
    minus: str
    lost: float
    said: str
    exhibit: Exhibit | None = None
    frame: int | None = None

    @property
    def name(self) -> str:
        """Of the image's file, with the frame where there are many."""
        return self.image.name if self.frame is None else f"{self.image.name}[{self.frame}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Considered:
    """A student that was considered for a latency budget.

    Attributes:
        median_ms: Predicted on the target. So is the 90 % interval from low to high.
        fits: Whether the median keeps to the budget.
    """

    architecture: str
    height: int
    width: int
    macs: int
    parameters: int
    median_ms: float
    low_ms: float
    high_ms: float
    fits: bool
    chosen: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """Everything that a report shows; terminal, JSON and HTML are three faces of this.

    Attributes:
        curves: Stage name → list of points ``{"step": …, "loss": …, "term/…": …, "map": …}``.
        checks: Every proof of every exported file.
        gates: What the recipe demands of a file that is to be released.
        setbacks: Images that int8 made worse, the worst first.
        considered: Students that were considered for a latency budget.
        provenance: Recipe hash, versions, host, threads, data set and its problem counts, seconds
            a stage took.
    """

    name: str
    target: str
    task: Task
    dataset: str
    rows: tuple[ModelRow, ...]
    comparisons: tuple[Comparison, ...]
    checks: tuple[Check, ...]
    curves: dict[str, list[dict[str, float]]]
    exhibits: tuple[Exhibit, ...]
    provenance: dict[str, str]
    gates: tuple[Gate, ...] = ()
    setbacks: tuple[Setback, ...] = ()
    considered: tuple[Considered, ...] = ()

    @property
    def reference(self) -> ModelRow | None:
        """What int8 is compared with: the row of `reference_key`."""
        key = reference_key([row.key for row in self.rows])
        return next((row for row in self.rows if row.key == key), None)


def reference_key(keys: Sequence[str]) -> str:
    """Returns the row that int8 is compared with: the float student trained as long, if there."""
    return "student-float" if "student-float" in keys else "student"
