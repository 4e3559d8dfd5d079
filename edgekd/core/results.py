"""What was measured, proven and judged: the records that a report is drawn from.

Conventions are those of `edgekd.core.types`. Imports nothing else from the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from edgekd.core.types import Detections, Precision, Task


class Basis(StrEnum):
    """Where a number comes from. The two never share a column."""

    MEASURED = "measured"
    PREDICTED = "predicted"


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

    KIND: ClassVar = "detection"

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

    KIND: ClassVar = "classification"

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
    """One proof of an exported file, with its criterion.

    Attributes:
        name: Such as ``parity/operators/tflite`` or ``coverage/onnx``.
        passed: Whether the criterion was met.
        figure: What was measured, in one line.
        criterion: What was demanded, in one line.
        failing_operator: First operator that breaks the criterion, None where it passed.
        details: JSON-ready figures behind the line (histograms, islands, per operator).
    """

    name: str
    passed: bool
    figure: str
    criterion: str
    failing_operator: str | None = None
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
class SampleVisualisation:
    """One validation image and what several models saw in it, for the side-by-side plot."""

    image: Path
    classes: tuple[str, ...]
    truth: Detections
    detections: dict[str, Detections]


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression:
    """One validation image that int8 answers worse than float does.

    Attributes:
        image: Path.
        of: Key of the int8 row.
        minus: Key of the float row.
        lost: Of the image's own mAP or, for a classifier, of the true class's probability; in
            [0, 1], above 0.
        said: What each of them answered, in one line.
        visualisation: Both sets of detections; None for a classifier.
        frame: Of the image in its file, where that holds many (IDX).
    """

    image: Path
    of: str
    minus: str
    lost: float
    said: str
    visualisation: SampleVisualisation | None = None
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
        regressions: Images that int8 made worse, the worst first.
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
    visualisations: tuple[SampleVisualisation, ...]
    provenance: dict[str, str]
    gates: tuple[Gate, ...] = ()
    regressions: tuple[Regression, ...] = ()
    considered: tuple[Considered, ...] = ()

    @property
    def reference(self) -> ModelRow | None:
        """What int8 is compared with: the row of `reference_key`."""
        key = reference_key([row.key for row in self.rows])
        return next((row for row in self.rows if row.key == key), None)


def reference_key(keys: Sequence[str]) -> str:
    """Returns the row that int8 is compared with: the float student trained as long, if there."""
    return "student-float" if "student-float" in keys else "student"
