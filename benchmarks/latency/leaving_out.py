"""What predictions are worth: boards, networks and architectures left out of what they learn from.

- *board left out*: efficiencies from all other boards, this one's peaks and memory, nothing else;
- *with one anchor*: the same, and one measurement of the board (the network of median latency);
- *network left out*: the board's other networks measured, too;
- *architecture left out*: likewise without any size of the same architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from population import guessed, population
from published import Run

from edgekd.core.files import write_atomic
from edgekd.measure.costs import Efficiencies
from edgekd.measure.predict import WITHIN_90

HERE = Path(__file__).parent
QUESTIONS = ("board left out", "with one anchor", "network left out", "architecture left out")
Answer = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Predicted ms, measured ms and the deviation of the predicted logarithm, each ``(N,)``."""


def answers(run: Run, known: Efficiencies) -> Iterator[tuple[str, Answer]]:
    """Yields every question with predicted ms, measured ms and the deviation of logarithms."""
    everything = np.ones(len(run.ms), bool)
    yield QUESTIONS[0], _predicted(run, known, everything)
    anchor = np.arange(len(run.ms)) == np.argsort(run.ms)[len(run.ms) // 2]
    if len(run.ms) > 1:
        yield QUESTIONS[1], _predicted(run, run.teach(known, anchor), ~anchor)
        yield QUESTIONS[2], _left_out(run, known, run.names)
    if 1 < len(set(run.architectures)) < len(run.names):
        yield QUESTIONS[3], _left_out(run, known, run.architectures)


def _left_out(run: Run, known: Efficiencies, groups: Sequence[str]) -> Answer:
    parts = []
    for group in sorted(set(groups)):
        held = np.array([name == group for name in groups])
        parts.append(_predicted(run, run.teach(known, ~held), held))
    predicted, measured, deviation = (np.concatenate(part) for part in zip(*parts, strict=True))
    return predicted, measured, deviation


def _predicted(run: Run, known: Efficiencies, chosen: NDArray[np.bool_]) -> Answer:
    costs, work = known.at(run.speed), run.work[chosen]
    times = np.array([costs.milliseconds(item[None]) for item in work])
    return times, run.ms[chosen], np.array([costs.deviation(item[None]) for item in work])


def summary(answer: Answer) -> dict[str, Any]:
    """Returns the errors of an answer."""
    predicted, measured, deviation = answer
    error = np.abs(predicted / measured - 1)
    inside = np.abs(np.log(predicted / measured)) <= WITHIN_90 * deviation
    found: dict[str, Any] = {
        "networks": len(measured),
        "median": round(float(np.median(error)), 4),
        "mean": round(float(np.mean(error)), 4),
        "within_10_percent": round(float(np.mean(error <= 0.1)), 3),
        "in_90_percent_interval": round(float(np.mean(inside)), 3),
        "median_half_width": round(float(np.median(np.exp(WITHIN_90 * deviation) - 1)), 3),
    }
    if len(measured) > 5:
        found["spearman"] = round(_spearman(predicted, measured), 4)
    return found


def _spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def evaluate(known: Sequence[Run], report: Callable[[Run, str, Answer], None]) -> None:
    """Reports every answer for runs of one precision, each board's peers without that board."""
    for run in known:
        others = [other for other in known if other.board != run.board]
        learnt = population(others, guessed(run.kernels, run.precision))
        for question, answer in answers(run, learnt):
            report(run, question, answer)


def pooled(answers: Sequence[Answer]) -> Answer:
    """Returns several answers as one."""
    predicted, measured, deviation = (np.concatenate(part) for part in zip(*answers, strict=True))
    return predicted, measured, deviation


def report(name: str, groups: Sequence[Sequence[Run]], **more: Any) -> dict[str, Any]:
    """Writes ``<name>.json`` and prints its tables.

    Args:
        name: Of the script that asks.
        groups: Runs of the same kernels and precision, which learn from each other.
        more: Further figures for the file.
    """
    rows: list[dict[str, Any]] = []
    parts: dict[tuple[str, str], list[Answer]] = {}

    def note(run: Run, question: str, answer: Answer) -> None:
        parts.setdefault((run.kernels, question), []).append(answer)
        about = {"kernels": run.kernels, "run": run.label, "precision": run.precision.value}
        rows.append({**about, "question": question, **summary(answer)})

    for group in groups:
        evaluate(group, note)
    together = [
        {"kernels": kernels, "question": question, "runs": len(found), **summary(pooled(found))}
        for (kernels, question), found in parts.items()
    ]
    for row in together:
        row.pop("spearman", None)
    command = f"python benchmarks/latency/{name}.py"
    document = {"command": command, "pooled": together, "rows": rows, **more}
    write_atomic(HERE / f"{name}.json", json.dumps(document, indent=1) + "\n")
    draw(name, parts)
    print("| kernels | question | runs | networks | median error | within 10 % | in interval |")
    print("|---|---|---|---|---|---|---|")
    for row in together:
        print(f"| {row['kernels']} | {row['question']} | {row['runs']} {_line(row)}")
    print("\n| run | precision | question | networks | median | within 10 % | in interval | rho |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        rho = row.get("spearman", "")
        print(f"| {row['run']} | {row['precision']} | {row['question']} {_line(row)} {rho} |")
    return document


def draw(name: str, parts: Mapping[tuple[str, str], Sequence[Answer]]) -> None:
    """Writes ``<name>.png``: predicted against published, each left out of what was learnt."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    wanted = ("board left out", "network left out")
    for axes, question in zip(figure.subplots(1, 2, sharex=True, sharey=True), wanted, strict=True):
        for (kernels, asked), answers in parts.items():
            if asked == question:
                predicted, measured, _ = pooled(answers)
                axes.plot(measured, predicted, ".", markersize=4, alpha=0.5, label=kernels)
        axes.set(xscale="log", yscale="log", title=question, xlabel="published, ms")
        low = min(float(m.min()) for found in parts.values() for _, m, _ in found)
        ends = np.array([low, max(float(m.max()) for f in parts.values() for _, m, _ in f)])
        for factor, style in ((1.0, "-"), (1.1, ":"), (1 / 1.1, ":")):
            axes.plot(ends, factor * ends, style, color="0.4", linewidth=0.8)
        axes.legend(loc="upper left")
    figure.axes[0].set_ylabel("predicted, ms")
    figure.savefig(HERE / f"{name}.png", dpi=90, metadata={"Software": None})


def _line(row: dict[str, Any]) -> str:
    return (
        f"| {row['networks']} | {row['median']:.1%} | {row['within_10_percent']:.0%} "
        f"| {row['in_90_percent_interval']:.0%} (± {row['median_half_width']:.0%}) |"
    )
