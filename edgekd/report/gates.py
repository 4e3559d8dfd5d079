"""Release gates: what the recipe demands of the int8 files that ship, judged on the run's record.

A gate that cannot be judged, since there is no figure, is a gate that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgekd.config.sections import GatesSection
from edgekd.core.errors import GateError
from edgekd.core.exported import INT8_ONNX, form_of
from edgekd.core.results import Basis, Gate, Latency, ModelRow, RunRecord
from edgekd.core.types import Precision
from edgekd.report import figures

Verdict = tuple[bool, str]
"""Whether a file keeps to a limit, and what was found."""


def judge(record: RunRecord, section: GatesSection) -> tuple[Gate, ...]:
    """Returns every gate of the recipe for every int8 file that ships."""
    reference = record.reference
    metric = record.task.metric
    demands: list[tuple[str, float | None, Callable[[float], str], Callable[..., Verdict]]] = [
        (
            "map-drop" if metric == "map" else "top1-drop",
            section.max_map_drop,
            lambda limit: f"{limit:g} points",
            lambda row, limit: _drop(row, reference, metric, limit),
        ),
        (
            "class-drop",
            section.max_class_drop,
            lambda limit: f"{limit:g} points",
            lambda row, limit: _class_drop(row, reference, limit),
        ),
        (
            "latency",
            section.max_latency_ms,
            lambda limit: f"{limit:g} ms",
            lambda row, limit: _latency(row, record.target, limit),
        ),
        (
            "size",
            section.max_size_bytes,
            lambda limit: figures.size(int(limit)),
            lambda row, limit: (row.size_bytes <= limit, figures.size(row.size_bytes)),
        ),
        ("memory", section.max_memory_bytes, lambda limit: figures.size(int(limit)), _memory),
    ]
    found = []
    for name, limit, written, verdict in demands:
        if limit is None:
            continue
        for row in shipped(record):
            passed, figure = verdict(row, limit)
            found.append(
                Gate(name=name, model=row.name, passed=passed, limit=written(limit), found=figure)
            )
    if section.budget_ms is not None:
        found.append(_budget(record, section.budget_ms))
    return tuple(found)


def _budget(record: RunRecord, budget: float) -> Gate:
    """Returns whether the fastest file that ships keeps to the budget of its student."""
    timed = [
        (latency.median_ms, row)
        for row in shipped(record)
        for latency in list(_on_target(row, record.target))[:1]
    ]
    if not timed:
        figure = f"unknown: neither measured on {record.target} nor predicted"
        return Gate(name="budget", model="-", passed=False, limit=f"{budget:g} ms", found=figure)
    median, row = min(timed, key=lambda pair: pair[0])
    passed, figure = _latency(row, record.target, budget)
    if not passed:
        figure += f"; --budget {budget**2 / median:.3g}ms would have bought one that keeps to it"
    return Gate(name="budget", model=row.name, passed=passed, limit=f"{budget:g} ms", found=figure)


def require_gates(gates: tuple[Gate, ...]) -> None:
    """Returns where every gate was met.

    Raises:
        GateError: One was not; the message holds each of those.
    """
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        lines = (f"{g.name} of {g.model}: {g.found}; allowed {g.limit}" for g in failed)
        raise GateError(f"{len(failed)} of {len(gates)} gates failed: " + "; ".join(lines))


def shipped(record: RunRecord) -> list[ModelRow]:
    """Returns the rows of the int8 files that the target executes.

    In a run without int8 those of its float16 file or, where there is none, its float32 files.
    """
    files = [r for r in record.rows if r.path and form_of(r.key) != "peer"]
    integer = [r for r in files if r.precision is Precision.INT8]
    if not integer:
        return [r for r in files if r.precision is Precision.FLOAT16] or files
    # The host form ships only where it is the only one.
    board = [r for r in integer if form_of(r.key) == "board"]
    onnx = any(r.key == INT8_ONNX.key for r in board)
    return [r for r in integer if r in board or not onnx]


def _drop(row: ModelRow, reference: ModelRow | None, metric: str, limit: float) -> Verdict:
    if reference is None or reference.metrics is None or row.metrics is None:
        return False, "unknown: the raw outputs give no accuracy"
    drop = 100 * (getattr(reference.metrics, metric) - getattr(row.metrics, metric))
    return drop <= limit, f"{drop:+.2f} points against {reference.name}"


def _class_drop(row: ModelRow, reference: ModelRow | None, limit: float) -> Verdict:
    if reference is None or reference.metrics is None or row.metrics is None:
        return False, "unknown: the raw outputs give no accuracy"
    before, after = reference.metrics.per_class, row.metrics.per_class
    # -1 stands for a class without annotated objects.
    drops = {n: 100 * (before[n] - after[n]) for n in after if min(before[n], after[n]) >= 0}
    if not drops:
        return False, "unknown: no class has annotated objects"
    worst = max(drops, key=lambda name: drops[name])
    return drops[worst] <= limit, f"{drops[worst]:+.2f} points in {worst} against {reference.name}"


def _latency(row: ModelRow, target: str, limit: float) -> Verdict:
    latency = next(_on_target(row, target), None)
    if latency is None:
        return False, f"unknown: neither measured on {target} nor predicted"
    figure = f"{figures.milliseconds(latency.median_ms)} ms, {latency.basis.value}"
    if latency.basis is Basis.PREDICTED:
        figure += f" {figures.predicted_range(latency)}"
    if latency.note:
        figure += f", {latency.note}"
    return latency.median_ms <= limit, figure


def _on_target(row: ModelRow, target: str) -> Iterator[Latency]:
    """Yields latencies that speak of the target; one measured here speaks only of this computer."""
    if row.measured is not None and target == "host":
        yield row.measured
    if row.predicted is not None:
        yield row.predicted


def _memory(row: ModelRow, limit: float) -> Verdict:
    if row.memory_bytes is None:
        return False, "unknown: not measured on this system"
    return row.memory_bytes <= limit, f"{figures.size(row.memory_bytes)}, measured here"
