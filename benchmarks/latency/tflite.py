"""How well costs by kernel class predict TFLite on boards and for networks they never saw.

    python benchmarks/latency/tflite.py

Published latencies (`published.py`), four questions for each board and precision:

- *board left out*: efficiencies from all other boards, this one's peaks and memory, nothing else;
- *with one anchor*: the same, and one measurement of the board (the network of median latency);
- *network left out*: the board's other networks measured, too;
- *architecture left out*: likewise without any size of the same architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from population import guessed, population
from published import Run, runs

from edgekd.benchmark.costs import Efficiencies
from edgekd.benchmark.predict import WITHIN_90
from edgekd.files import write_atomic

HERE = Path(__file__).parent
QUESTIONS = ("board left out", "with one anchor", "network left out", "architecture left out")
Answer = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def answers(run: Run, known: Efficiencies) -> Iterator[tuple[str, Answer]]:
    """Yields every question with predicted ms, measured ms and the deviation of logarithms."""
    everything = np.ones(len(run.ms), bool)
    yield QUESTIONS[0], _predicted(run, known, everything)
    anchor = np.arange(len(run.ms)) == np.argsort(run.ms)[len(run.ms) // 2]
    if len(run.ms) > 1:
        yield QUESTIONS[1], _predicted(run, run.teach(known, anchor), ~anchor)
        yield QUESTIONS[2], _left_out(run, known, run.names)
    if len(set(run.architectures)) > 1:
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
        others = [other for other in known if other.board.name != run.board.name]
        learnt = population(others, guessed(run.kernels, run.precision))
        for question, answer in answers(run, learnt):
            report(run, question, answer)


def main() -> None:
    """Writes ``tflite.json`` and prints its tables."""
    rows: list[dict[str, Any]] = []
    pooled: dict[tuple[str, str], list[Answer]] = {}

    def report(run: Run, question: str, answer: Answer) -> None:
        pooled.setdefault((run.kernels, question), []).append(answer)
        about = {"kernels": run.kernels, "run": run.label, "precision": run.precision.value}
        rows.append({**about, "question": question, **summary(answer)})

    for kernels in ("ruy", "xnnpack"):
        found = runs(kernels)
        for precision in dict.fromkeys(run.precision for run in found):
            evaluate([run for run in found if run.precision is precision], report)
    together = []
    for (kernels, question), parts in pooled.items():
        predicted, measured, deviation = (np.concatenate(part) for part in zip(*parts, strict=True))
        figures = summary((predicted, measured, deviation)) | {"runs": len(parts)}
        figures.pop("spearman", None)
        together.append({"kernels": kernels, "question": question, **figures})
    document = {
        "command": "python benchmarks/latency/tflite.py",
        "pooled": together,
        "rows": rows,
    }
    write_atomic(HERE / "tflite.json", json.dumps(document, indent=1) + "\n")
    print(
        "| kernels | question | runs | networks | median error | within 10 % | in 90 % interval |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in together:
        print(f"| {row['kernels']} | {row['question']} | {row['runs']} {_line(row)}")
    print("\n| run | precision | question | networks | median | within 10 % | in interval | rho |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        rho = row.get("spearman", "")
        print(f"| {row['run']} | {row['precision']} | {row['question']} {_line(row)} {rho} |")


def _line(row: dict[str, Any]) -> str:
    return (
        f"| {row['networks']} | {row['median']:.1%} | {row['within_10_percent']:.0%} "
        f"| {row['in_90_percent_interval']:.0%} (± {row['median_half_width']:.0%}) |"
    )


if __name__ == "__main__":
    main()
