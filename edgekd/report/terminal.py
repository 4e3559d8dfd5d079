"""The terminal face of a run record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekd.core.results import Check, Gate, RunRecord
from edgekd.report import figures
from edgekd.report.recommendation import recommendation
from edgekd.report.table import (
    ResultLine,
    accuracy_names,
    comparison_lines,
    gates_summary,
    proofs_summary,
    result_lines,
    timing_notes,
    worst_changes,
)


def print_report(record: RunRecord, console: Console, *, verbose: bool = False) -> None:
    """Prints the run's result: table, comparisons, proofs, what to take.

    A terminal gets tables made for 100 columns. Anything else gets plain lines, one fact a line,
    never wrapped, so that a log can be searched.

    Args:
        record: Of the run.
        console: Where to.
        verbose: Whether to list every proof and every file; else the proofs that passed are one
            line, and those that failed are listed.

    Raises:
        RunError: The record mixes measured and predicted latency, or two tasks.
    """
    if not console.is_terminal:
        for line in _plain_lines(record, verbose):
            console.print(Text(_printable(line)), soft_wrap=True)
        return
    console.print(_heading(record))
    for title, content in _sections(record, verbose):
        console.print(Text(f"\n{title}", style="bold"))
        console.print(content)
    console.print()


def print_layers(layers: Sequence[Mapping[str, Any]], target: str, console: Console) -> None:
    """Prints what int8 does at each layer, worst first, and what float would cost there.

    Args:
        layers: Mappings of ``layer``, ``weight``, ``output`` and ``price_ms``.
        target: Whose latency the prices are predicted for.
        console: Gets a table on a terminal, else one line a layer.
    """
    heads = ("layer", "rounding its output", "rounding its weight", f"float on {target}, predicted")
    worst = sorted(layers, key=lambda row: -max(row["output"] or 0.0, row["weight"] or 0.0))
    rows = [
        (row["layer"], _share(row["output"]), _share(row["weight"]), _price(row["price_ms"]))
        for row in worst
    ]
    title = "Noise in the outputs over their signal, each rounding alone"
    if not console.is_terminal:
        console.print(title, soft_wrap=True)
        for values in rows:
            line = "; ".join(f"{h} {v}" for h, v in zip(heads, values, strict=True))
            console.print(Text(_printable(line)), soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, title=title)
    for head in heads:
        table.add_column(head, justify="left" if head == "layer" else "right")
    for values in rows:
        table.add_row(*(_printable(value) for value in values))
    console.print(table)


def _share(noise: float | None) -> str:
    return "-" if noise is None else f"{100 * noise:.3g} %"


def _price(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:+.3g} ms"


def _heading(record: RunRecord) -> Text:
    return Text.assemble(
        (_printable(record.name), "bold"),
        (f"  {_printable(_subject(record))}", "dim"),
    )


def _subject(record: RunRecord) -> str:
    return f"{record.task} on {record.dataset}, for {record.target}"


def _sections(record: RunRecord, verbose: bool) -> Iterator[tuple[str, RenderableType]]:
    yield "Results", Group(_result_table(record), "", *_timing_notes(record))
    if record.comparisons:
        yield "Differences, paired over images", _comparison_table(record)
    if lines := worst_changes(record):
        yield "After int8, what lost most", Group(*(Text(_printable(line)) for line in lines))
    if record.checks:
        yield f"Proofs: {proofs_summary(record)}", _check_table(_listed(record, verbose))
    if record.gates:
        yield f"Gates: {gates_summary(record)}", _gate_table(record.gates)
    if verbose and any(row.path for row in record.rows):
        yield "Files", _file_table(record)
    if advice := recommendation(record.rows):
        yield "Recommendation", Text(_printable(advice))


def _listed(record: RunRecord, verbose: bool) -> tuple[Check, ...]:
    """Returns the proofs that are shown one by one."""
    return tuple(check for check in record.checks if verbose or not check.passed)


def _result_table(record: RunRecord) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("Model")
    for name in accuracy_names(record.task):
        table.add_column(figures.METRIC_TITLES[name].replace("@", "@\n"), justify="right")
    for title in ("Parame-\nters", "MACs", "Size,\nRAM", "Measured\nmedian\nms", "p90\nms"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column(f"Predicted ms,\n{_printable(record.target)}", justify="right")
    for line in result_lines(record):
        table.add_row(
            _stacked(line.name, line.runtime),
            *line.accuracy,
            line.parameters,
            line.macs,
            _stacked(line.size, line.memory),
            *line.measured,
            _prediction(line),
        )
    return table


def _prediction(line: ResultLine) -> Text:
    figure = f"{line.predicted} {line.predicted_range}".strip()
    return _stacked(figure, line.predicted_label) if line.predicted_label else Text(figure)


def _stacked(first: str, second: str) -> Text:
    return Text.assemble(_printable(first), ("\n" + _printable(second), "dim"))


def _timing_notes(record: RunRecord) -> list[Text]:
    return [Text(_printable(note), style="dim") for note in timing_notes(record)]


def _comparison_table(record: RunRecord) -> Table:
    table = _bare_table()
    for line in comparison_lines(record):
        table.add_row(
            Text(_printable(f"{line.of} minus {line.minus}")),
            Text(_printable(line.metric)),
            Text(line.difference),
            Text(f"{line.confidence}: {line.verdict}", style="dim"),
        )
    return table


def _bare_table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)


def _state(passed: bool) -> Text:
    return Text("PASS", style="green") if passed else Text("FAIL", style="bold red")


def _check_table(checks: tuple[Check, ...]) -> Table:
    table = _bare_table()
    table.add_column(no_wrap=True)
    for check in checks:
        table.add_row(
            _state(check.passed),
            Text(_printable(check.name)),
            _figure_and_operator(check),
            Text(_printable(f"criterion: {check.criterion}"), style="dim"),
        )
    return table


def _gate_table(gates: tuple[Gate, ...]) -> Table:
    table = _bare_table()
    table.add_column(no_wrap=True)
    for gate in gates:
        table.add_row(
            _state(gate.passed),
            Text(gate.name),
            Text(_printable(gate.model)),
            Text(_printable(gate.found)),
            Text(f"allowed {gate.limit}", style="dim"),
        )
    return table


def _figure_and_operator(check: Check) -> Text:
    if check.failing_operator is None:
        return Text(_printable(check.figure))
    return Text.assemble(
        _printable(check.figure), (f"; first at {_printable(check.failing_operator)}", "bold red")
    )


def _file_table(record: RunRecord) -> Table:
    table = _bare_table()
    table.add_column()
    table.add_column(overflow="fold")
    for row in record.rows:
        if row.path:
            table.add_row(Text(_printable(row.name)), Text(_printable(row.path)))
    return table


def _plain_lines(record: RunRecord, verbose: bool) -> Iterator[str]:
    yield f"run {record.name}: {_subject(record)}"
    for line in result_lines(record):
        yield _plain_result(line, record)
    yield from timing_notes(record)
    for difference in comparison_lines(record):
        yield (
            f"difference {difference.of} minus {difference.minus}: {difference.metric} "
            f"{difference.difference} ({difference.confidence}, {difference.verdict})"
        )
    for change in worst_changes(record):
        yield f"after int8: {change}"
    for regression in record.regressions:
        yield f"worse after int8: {regression.name}: {regression.said}"
    yield from _plain_proofs(record, verbose)
    for gate in record.gates:
        state = "PASS" if gate.passed else "FAIL"
        yield f"{state} gate {gate.name} of {gate.model}: {gate.found} (allowed {gate.limit})"
    for row in record.rows if verbose else ():
        if row.path:
            yield f"file {row.name}: {row.path}"
    if advice := recommendation(record.rows):
        yield f"recommendation: {advice}"


def _plain_proofs(record: RunRecord, verbose: bool) -> Iterator[str]:
    if record.checks:
        yield f"proofs: {proofs_summary(record)}"
    for check in _listed(record, verbose):
        failing_operator = (
            "" if check.failing_operator is None else f"; first at {check.failing_operator}"
        )
        state = "PASS" if check.passed else "FAIL"
        demanded = f"(criterion: {check.criterion}){failing_operator}"
        yield f"{state} {check.name}: {check.figure} {demanded}"


def _plain_result(line: ResultLine, record: RunRecord) -> str:
    titles = [figures.METRIC_TITLES[name] for name in accuracy_names(record.task)]
    parts = [f"{title} {text}" for title, text in zip(titles, line.accuracy, strict=True)]
    parts += [f"parameters {line.parameters}", f"MACs {line.macs}", f"size {line.size}"]
    parts += [f"peak memory {line.memory}"]
    parts.append(f"measured median ms {line.measured[0]}, p90 ms {line.measured[1]}")
    if line.predicted_label:
        parts.append(
            f"for {record.target} ms {line.predicted} {line.predicted_range} "
            f"({line.predicted_label})"
        )
    return f"model {line.name} ({line.runtime}, {line.precision}): " + "; ".join(parts)


def _printable(text: str) -> str:
    """Returns the text on one line, without the control characters that could drive a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
