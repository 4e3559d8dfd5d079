"""What the terminal and the HTML face have to say, as text, before either lays it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from edgekd.core.errors import RunError
from edgekd.core.exported import INT8_HOST_ONNX, INT8_ONNX, INT8_TFLITE
from edgekd.core.results import (
    Basis,
    ClassificationMetrics,
    Comparison,
    DetectionMetrics,
    Latency,
    ModelRow,
    RunRecord,
)
from edgekd.core.types import Task
from edgekd.report import figures


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultLine:
    """One line of the result table; every figure is text, ``-`` where there is none.

    Attributes:
        accuracy: One text per name in :func:`accuracy_names`.
        measured: Median and 90th percentile in milliseconds.
        predicted: Milliseconds, ``-`` where there is no prediction.
        predicted_range: Its interval, empty where there is no prediction.
        predicted_label: How far the prediction can be trusted, empty where there is none.
    """

    name: str
    runtime: str
    precision: str
    accuracy: tuple[str, ...]
    parameters: str
    macs: str
    size: str
    memory: str
    measured: tuple[str, str]
    predicted: str
    predicted_range: str
    predicted_label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonLine:
    """One difference with its paired interval, as text."""

    of: str
    minus: str
    metric: str
    difference: str
    confidence: str
    verdict: str


def accuracy_names(task: Task) -> tuple[str, str]:
    """Returns the two metrics that stand in the result table."""
    first, second = figures.TASK_METRICS[task][:2]
    return first, second


def result_lines(record: RunRecord) -> tuple[ResultLine, ...]:
    """Returns the result table, one line per model.

    Raises:
        RunError: A prediction stands where a measurement belongs or the other way round, or a
            model's metrics are of another task than the run's.
    """
    return tuple(_result_line(row, record) for row in record.rows)


def comparison_lines(record: RunRecord) -> tuple[ComparisonLine, ...]:
    """Returns the comparisons with the models' names in place of their keys."""
    names = {row.key: row.name for row in record.rows}
    return tuple(_comparison_line(comparison, names) for comparison in record.comparisons)


def measured(rows: Sequence[ModelRow]) -> tuple[tuple[ModelRow, Latency], ...]:
    """Returns the models that were timed, each with its latency."""
    return tuple((row, row.measured) for row in rows if row.measured is not None)


def predicted(rows: Sequence[ModelRow]) -> tuple[tuple[ModelRow, Latency], ...]:
    """Returns the models that have a prediction, each with its latency."""
    return tuple((row, row.predicted) for row in rows if row.predicted is not None)


def conditions(latency: Latency) -> str:
    """Returns where and how a latency was taken, and what was wrong with a measured one."""
    parts = [
        latency.where,
        f"{latency.runtime} {latency.runtime_version}".strip(),
        f"delegate {latency.delegate}" if latency.delegate else "",
        f"{latency.threads} thread" + ("s" if latency.threads != 1 else ""),
        f"{latency.runs} runs" if latency.runs else "",
        *(f"{name} {value}" for name, value in latency.conditions.items()),
        latency.note if latency.basis is Basis.MEASURED else "",
    ]
    return ", ".join(part for part in parts if part)


def timing_notes(record: RunRecord) -> tuple[str, ...]:
    """Returns one line for each way in which latencies were taken, with the models it holds for."""
    models: dict[str, list[str]] = {}
    for title, timed in (
        ("Measured", measured(record.rows)),
        ("Predicted", predicted(record.rows)),
    ):
        for row, latency in timed:
            models.setdefault(f"{title}: {conditions(latency)}", []).append(row.name)
    return tuple(f"{way} ({', '.join(names)})" for way, names in models.items())


def proofs_summary(record: RunRecord) -> str:
    """Returns ``12 of 13 passed``."""
    passed = sum(check.passed for check in record.checks)
    return f"{passed} of {len(record.checks)} passed"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeLine:
    """What int8 did to one class or one size of objects, as text.

    Attributes:
        name: The class, or the metric of the size.
        before: Of the float student.
        after: Of each int8 file, and its change.
    """

    name: str
    before: str
    after: tuple[tuple[str, str], ...]


def after_int8(record: RunRecord) -> tuple[tuple[str, ...], tuple[ChangeLine, ...]]:
    """Returns the names of the int8 files, and a line for every size and class.

    Empty where there is no int8 file with accuracy, or nothing to compare it with.
    """
    rows = {row.key: row for row in record.rows}
    reference = record.reference
    files = [rows[f.key] for f in (INT8_ONNX, INT8_HOST_ONNX, INT8_TFLITE) if f.key in rows]
    files = [row for row in files if row.metrics is not None]
    if reference is None or reference.metrics is None or not files:
        return (), ()
    sizes = [name for name in figures.TASK_METRICS[record.task] if name in figures.SIZES]
    readings: list[tuple[str, Callable[[figures.Metrics], float]]] = [
        (figures.METRIC_TITLES[name], attrgetter(name)) for name in sizes
    ]
    readings += [
        (name, lambda metrics, name=name: metrics.per_class[name])  # type: ignore[misc]
        for name in reference.metrics.per_class
    ]
    lines = []
    for name, read in readings:
        before = read(reference.metrics)
        values = [read(row.metrics) for row in files if row.metrics is not None]
        if min(before, *values) >= 0:
            after = tuple((figures.share_points(v), f"{100 * (v - before):+.2f}") for v in values)
            lines.append(ChangeLine(name=name, before=figures.share_points(before), after=after))
    return tuple(row.name for row in files), tuple(lines)


def worst_changes(record: RunRecord, most: int = 3) -> tuple[str, ...]:
    """Returns a line for each of the sizes and classes that lost most in some int8 file."""
    names, lines = after_int8(record)
    lost = [
        (float(change), f"{line.name} {change} points ({line.before} to {value}) in {name}")
        for line in lines
        for name, (value, change) in zip(names, line.after, strict=True)
    ]
    return tuple(text for change, text in sorted(lost)[:most] if change < 0)


def gates_summary(record: RunRecord) -> str:
    """Returns ``3 of 4 met``."""
    return f"{sum(gate.passed for gate in record.gates)} of {len(record.gates)} met"


def _result_line(row: ModelRow, record: RunRecord) -> ResultLine:
    _require_basis(row.key, row.measured, Basis.MEASURED)
    _require_basis(row.key, row.predicted, Basis.PREDICTED)
    _require_task(row, record.task)
    timed, guess = row.measured, row.predicted
    return ResultLine(
        name=row.name,
        runtime=row.runtime,
        precision=row.precision.value,
        accuracy=tuple(figures.points(row.metrics, name) for name in accuracy_names(record.task)),
        parameters=figures.count(row.parameters),
        macs=figures.count(row.macs),
        size=figures.size(row.size_bytes),
        memory=figures.NONE if row.memory_bytes is None else figures.size(row.memory_bytes),
        measured=(
            figures.milliseconds(timed.median_ms if timed else None),
            figures.milliseconds(timed.p90_ms if timed else None),
        ),
        predicted=figures.milliseconds(guess.median_ms if guess else None),
        predicted_range=figures.predicted_range(guess) if guess else "",
        predicted_label=figures.predicted_label(guess) if guess else "",
    )


def _comparison_line(comparison: Comparison, names: dict[str, str]) -> ComparisonLine:
    interval, metric = comparison.interval, comparison.metric
    return ComparisonLine(
        of=names.get(comparison.of, comparison.of),
        minus=names.get(comparison.minus, comparison.minus),
        metric=figures.METRIC_TITLES.get(metric, metric),
        difference=figures.interval_text(interval, metric),
        confidence=f"{interval.confidence * 100:g} %",
        verdict=figures.verdict(interval, metric),
    )


def _require_basis(key: str, latency: Latency | None, basis: Basis) -> None:
    if latency is not None and latency.basis is not basis:
        raise RunError(
            f"run record: row {key!r} holds a {latency.basis} latency where a {basis} one belongs; "
            f"legal: {basis}"
        )


def _require_task(row: ModelRow, task: Task) -> None:
    legal = DetectionMetrics if task is Task.DETECTION else ClassificationMetrics
    if row.metrics is not None and not isinstance(row.metrics, legal):
        raise RunError(
            f"run record: row {row.key!r} holds {type(row.metrics).__name__} in a run for {task}; "
            f"legal: {legal.__name__}"
        )
