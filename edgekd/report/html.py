"""The HTML face of a run record: one file that needs no network, no script and no other file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import edgekd
from edgekd.core.exported import form_of
from edgekd.core.files import write_atomic
from edgekd.core.results import Check, Latency, ModelRow, RunRecord
from edgekd.core.types import Precision
from edgekd.report import figures, plots, table, visualisations


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """One large figure at the top of the page; ``kind`` picks its look."""

    title: str
    value: str
    note: str
    kind: str = "plain"


def write_html(record: RunRecord, path: Path) -> None:
    """Writes the report as one self-contained HTML file; the same record gives the same bytes.

    Raises:
        RunError: The image of a visualisation cannot be read, or the record mixes measured and
            predicted latency, or two tasks.
        ModelError: A detection's label has no class name.
    """
    write_atomic(path, render_html(record))


def render_html(record: RunRecord) -> str:
    """Returns the page that :func:`write_html` writes."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        points=figures.share_points,
        milliseconds=figures.milliseconds,
        json=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    )
    text = files("edgekd.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(_context(record))


def _context(record: RunRecord) -> dict[str, Any]:
    names = {row.key: row.name for row in record.rows}
    return {
        "record": record,
        "version": edgekd.__version__,
        "headlines": _headlines(record),
        "accuracy_titles": _titles(table.accuracy_names(record.task)),
        "lines": table.result_lines(record),
        "comparisons": table.comparison_lines(record),
        "summary": table.proofs_summary(record),
        "gates_summary": table.gates_summary(record),
        "failed": sum(not check.passed for check in record.checks),
        "measured": table.measured(record.rows),
        "predicted": table.predicted(record.rows),
        "predicted_range": figures.predicted_range,
        "predicted_label": figures.predicted_label,
        "considered_plot": (
            plots.considered_plot(record.target, record.considered) if record.considered else ""
        ),
        "chosen": next((item for item in record.considered if item.chosen), None),
        "curves": _curves(record),
        "latency_plots": _latency_plots(record),
        "everywhere_plot": _everywhere_plot(record),
        "operators_plot": _operators_plot(record),
        "metrics_titles": _titles(figures.TASK_METRICS[record.task]),
        "metrics": _metrics(record),
        "change_plot": _change_plot(record),
        "class_rows": [row for row in record.rows if row.metrics and row.metrics.per_class],
        "class_names": _class_names(record),
        "histograms": _histograms(record.checks),
        "histogram_plot": _histogram_plot(record.checks),
        "coverage": [
            check
            for check in record.checks
            if check.name.startswith("coverage/") and "share" in check.details
        ],
        "after_int8": table.after_int8(record),
        "regressions": [
            (
                regression,
                names,
                visualisations.gallery(regression.visualisation, names)
                if regression.visualisation
                else None,
            )
            for regression in record.regressions
        ],
        "galleries": [
            visualisations.gallery(visualisation, names) for visualisation in record.visualisations
        ],
        "min_score": visualisations.MIN_SCORE,
    }


def _titles(names: tuple[str, ...]) -> list[str]:
    return [figures.METRIC_TITLES[name] for name in names]


def _shipped(record: RunRecord) -> ModelRow | None:
    """Returns the model that the headline speaks of: the int8 file for the target's own runtime."""
    integer = [row for row in record.rows if row.precision is Precision.INT8 and row.path]
    final = [row for row in integer if form_of(row.key) == "board"]
    # Of the formats that the target runs, the one predicted to be faster there.
    for_target = [(row.predicted.median_ms, row) for row in final if row.predicted is not None]
    if for_target:
        return min(for_target, key=lambda item: item[0])[1]
    half = [row for row in record.rows if row.path and row.precision is Precision.FLOAT16]
    return next(iter(final or half or record.rows[-1:]), None)


def _headlines(record: RunRecord) -> list[Headline]:
    row = _shipped(record)
    found: list[Headline] = []
    if row is not None:
        teacher = next((other for other in record.rows if other.key == "teacher"), None)
        found += [_accuracy_headline(row, teacher, record), _size_headline(row, teacher)]
        for timed in (row, *(r for r in record.rows if form_of(r.key) == "host")):
            if timed.measured:
                found.append(_measured_headline(timed.name, timed.measured))
                break
        found += [_predicted_headline(row.predicted, record.target)] if row.predicted else []
    failed = [check.name for check in record.checks if not check.passed]
    passed = len(record.checks) - len(failed)
    note = f"failed: {', '.join(failed)}" if failed else "every criterion met"
    if record.checks:
        value, kind = f"{passed} of {len(record.checks)}", "fail" if failed else "pass"
        found.append(Headline(title="Proofs passed", value=value, note=note, kind=kind))
    return found


def _accuracy_headline(row: ModelRow, teacher: ModelRow | None, record: RunRecord) -> Headline:
    name = table.accuracy_names(record.task)[0]
    note = row.name
    if teacher is not None and teacher is not row:
        note += f"; {teacher.name}: {figures.points(teacher.metrics, name)}"
    title = figures.METRIC_TITLES[name]
    return Headline(title=title, value=figures.points(row.metrics, name), note=note)


def _size_headline(row: ModelRow, teacher: ModelRow | None) -> Headline:
    note = f"{figures.count(row.parameters)} parameters"
    if teacher is not None and teacher is not row and row.size_bytes:
        ratio = figures.significant(teacher.size_bytes / row.size_bytes)
        note += f"; {ratio} times smaller than {teacher.name}"
    return Headline(title="File size", value=figures.size(row.size_bytes), note=note)


def _measured_headline(name: str, latency: Latency) -> Headline:
    value = f"{figures.milliseconds(latency.median_ms)} ms"
    note = f"median on {latency.where}, {latency.threads} threads; {name}"
    return Headline(title="Latency, measured", value=value, note=note)


def _predicted_headline(latency: Latency, target: str) -> Headline:
    value = f"{figures.milliseconds(latency.median_ms)} ms"
    note = f"{figures.predicted_range(latency)} on {target}; {figures.predicted_label(latency)}"
    return Headline(title="Latency, predicted", value=value, note=note, kind="predicted")


def _curves(record: RunRecord) -> list[tuple[str, str]]:
    drawn = ((stage, plots.curves_plot(stage, points)) for stage, points in record.curves.items())
    return [(stage, svg) for stage, svg in drawn if svg]


def _latency_plots(record: RunRecord) -> list[str]:
    """Returns one plot for each place of measurement; times of two machines share no axis."""
    metric = table.accuracy_names(record.task)[0]
    places: dict[str, list[tuple[str, float, float]]] = {}
    for row, latency in table.measured(record.rows):
        accuracy = -1.0 if row.metrics is None else float(getattr(row.metrics, metric))
        if accuracy >= 0:
            model = (row.name, latency.median_ms, accuracy * 100)
            places.setdefault(latency.where, []).append(model)
    return [plots.latency_plot(where, metric, models) for where, models in places.items()]


def _everywhere_plot(record: RunRecord) -> str:
    """Returns the files' latencies on every profile, each file with the accuracy that it has."""
    metric = table.accuracy_names(record.task)[0]
    models = {
        f"{row.name}, {figures.points(row.metrics, metric)} points": row.everywhere
        for row in record.rows
        if row.everywhere
    }
    return plots.everywhere_plot(figures.METRIC_TITLES[metric], models) if models else ""


def _operators_plot(record: RunRecord) -> str:
    row = _shipped(record)
    if row is None or not row.operators:
        return ""
    return plots.operators_plot(record.target, row.name, row.operators)


def _metrics(record: RunRecord) -> list[tuple[ModelRow, list[str]]]:
    names = figures.TASK_METRICS[record.task]
    return [
        (row, [figures.points(row.metrics, name) for name in names])
        for row in record.rows
        if row.metrics is not None
    ]


def _change_plot(record: RunRecord) -> str:
    rows = {row.key: row for row in record.rows}
    changes: dict[str, dict[str, float]] = {}
    for suffix in ("onnx", "tflite"):
        after, before = rows.get(f"int8-{suffix}"), rows.get(f"float-{suffix}")
        if after is None or before is None or after.metrics is None or before.metrics is None:
            continue
        old, new = before.metrics.per_class, after.metrics.per_class
        change = {
            name: (new[name] - old[name]) * 100
            for name in new
            if new[name] >= 0 and old.get(name, -1) >= 0
        }
        if change:
            changes[f"{after.name} minus {before.name}"] = change
    return plots.change_plot(changes) if changes else ""


def _class_names(record: RunRecord) -> list[str]:
    classes = (row.metrics.per_class for row in record.rows if row.metrics is not None)
    return list(dict.fromkeys(name for per_class in classes for name in per_class))


def _histograms(checks: tuple[Check, ...]) -> list[tuple[str, str, dict[str, float]]]:
    return [
        (check.name, pair, shares)
        for check in checks
        for pair, shares in check.details.get("histogram", {}).items()
    ]


def _histogram_plot(checks: tuple[Check, ...]) -> str:
    bars = {f"{pair}\n{name}": shares for name, pair, shares in _histograms(checks)}
    return plots.histogram_plot(bars) if bars else ""
