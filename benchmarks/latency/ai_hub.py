"""How well five measurements on a new NPU predict the networks that others have measured elsewhere.

    python benchmarks/latency/ai_hub.py

`data/ai_hub.csv` holds what Qualcomm AI Hub publishes for 63 networks on 24 devices (github.com/
qualcomm/ai-hub-models, perf.yaml of each network): its *estimated inference time*, in LiteRT, QNN
and ONNX Runtime, float, w8a8 and w8a16; the median over releases, rows with layers off the NPU left
out. This is no prediction of a file: it needs the network's own latency on other devices.

The logarithm of a latency is a sum of factors, each a Gaussian of its own variance: of the network,
alone and with the precision and the runtime; of the device, likewise; of the device times the
network's size, since overhead and throughput do not scale alike. Every device is left out but for
five anchors, small to large, three of them in w8a8 where the device has both.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from leaving_out import Answer, pooled, summary
from numpy.typing import NDArray

from edgekd.core.files import write_atomic

HERE = Path(__file__).parent
ANCHORS = {"w8a8": 3, "float": 2}
FEWEST = 12
"""Rows that a device must have to be judged."""

MODEL, DEVICE, RUNTIME, PRECISION = range(4)
FACTORS = (
    ((MODEL,), 1.5),
    ((MODEL, PRECISION), 0.35),
    ((MODEL, RUNTIME), 0.25),
    ((DEVICE,), 0.6),
    ((DEVICE, PRECISION), 0.4),
    ((DEVICE, RUNTIME), 0.2),
    ((PRECISION,), 0.5),
    ((RUNTIME, PRECISION), 0.2),
)
"""Standard deviations of the logarithm."""

SLOPE, NOISE = 0.15, 0.15
Indices = NDArray[np.int64]


class Table:
    """The rows: what each is of, and the logarithm of its latency."""

    def __init__(self) -> None:
        with (HERE / "data" / "ai_hub.csv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        columns = [[row[name] for row in rows] for name in ("model", "device", "runtime")]
        columns.append([row["precision"] for row in rows])
        found = [np.unique(column, return_inverse=True) for column in columns]
        self.names = [names for names, _ in found]
        self.codes = np.array([codes for _, codes in found])
        self.logs = np.log([float(row["latency_ms"]) for row in rows])

    def sizes(self, rows: Indices) -> NDArray[np.float64]:
        """Returns every row's network's mean logarithm over some rows, standardized."""
        mean = np.full(len(self.names[MODEL]), self.logs[rows].mean())
        for model in np.unique(self.codes[MODEL, rows]):
            mean[model] = self.logs[rows][self.codes[MODEL, rows] == model].mean()
        standard: NDArray[np.float64] = (mean - mean.mean()) / mean.std()
        return standard[self.codes[MODEL]]

    def covariance(
        self, one: Indices, other: Indices, size: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns ``(len(one), len(other))`` covariances of the logarithms."""
        same = [code[one][:, None] == code[other][None] for code in self.codes]
        total = SLOPE**2 * same[DEVICE] * np.outer(size[one], size[other])
        for parts, deviation in FACTORS:
            total += deviation**2 * np.logical_and.reduce([same[part] for part in parts])
        return total

    def anchors(self, rows: Indices, size: NDArray[np.float64]) -> Indices:
        """Returns five rows of a device, by the size of their networks."""
        kinds = list(self.names[PRECISION])
        by_kind = {k: rows[self.codes[PRECISION, rows] == kinds.index(k)] for k in ANCHORS}
        some = {kind: found for kind, found in by_kind.items() if len(found)}
        chosen: list[int] = []
        for kind, found in some.items():
            count = ANCHORS[kind] if len(some) > 1 else sum(ANCHORS.values())
            ordered = found[np.argsort(size[found], kind="stable")]
            chosen += [int(ordered[int((i + 0.5) / count * len(found))]) for i in range(count)]
        return np.array(sorted(set(chosen)))


def left_out(table: Table, device: int) -> Answer | None:
    """Returns predictions for a device of which five anchors are known; None for too few rows."""
    there = np.flatnonzero(table.codes[DEVICE] == device)
    others = np.flatnonzero(table.codes[DEVICE] != device)
    there = there[np.isin(table.codes[MODEL, there], table.codes[MODEL, others])]
    if len(there) < FEWEST:
        return None
    size = table.sizes(others)
    anchors = table.anchors(there, size)
    asked = np.setdiff1d(there, anchors)
    known = np.concatenate([others, anchors])
    mean = table.logs[others].mean()
    noisy = table.covariance(known, known, size) + NOISE**2 * np.eye(len(known))
    across = table.covariance(known, asked, size)
    gain = np.linalg.solve(noisy, across)
    predicted = mean + gain.T @ (table.logs[known] - mean)
    spread = np.diag(table.covariance(asked, asked, size)) - np.sum(across * gain, axis=0)
    return np.exp(predicted), np.exp(table.logs[asked]), np.sqrt(spread + NOISE**2)


def main() -> None:
    """Writes ``ai_hub.json`` and prints its table."""
    table, rows, answers = Table(), [], []
    print("| device | networks x runtimes | median error | within 10 % | in 90 % interval |")
    print("|---|---|---|---|---|")
    for device, name in enumerate(table.names[DEVICE]):
        answer = left_out(table, device)
        if answer is not None:
            answers.append(answer)
            rows.append({"device": str(name), **summary(answer)})
            print(_line(rows[-1]))
    together = {"device": "all", **summary(pooled(answers))}
    print(_line(together))
    command = "python benchmarks/latency/ai_hub.py"
    document = {"command": command, "anchors": ANCHORS, "pooled": together, "rows": rows}
    write_atomic(HERE / "ai_hub.json", json.dumps(document, indent=1) + "\n")


def _line(row: dict[str, Any]) -> str:
    return (
        f"| {row['device']} | {row['networks']} | {row['median']:.1%} "
        f"| {row['within_10_percent']:.0%} | {row['in_90_percent_interval']:.0%} "
        f"(± {row['median_half_width']:.0%}) |"
    )


if __name__ == "__main__":
    main()
