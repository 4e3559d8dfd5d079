"""How well costs by kernel class predict TFLite on two boards, for networks they never saw.

    python benchmarks/latency/tflite.py

`data/tflite.csv` holds medians that Krai measured for MLPerf (single stream) with TFLite's own ruy
kernels, on a Raspberry Pi 4 (Cortex-A72, 1.5 GHz) and on an RK3588S (Cortex-A76, 2.4 GHz, as in a
Raspberry Pi 5). Three figures for each board and precision: from the board's peaks alone; with one
network left out of the fit; with its whole architecture left out.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from architectures import Network, efficientnet_lite, mobilenet_v1, mobilenet_v3
from numpy.typing import NDArray

from edgekd.benchmark.costs import Costs, Kernels, prior_costs, work_of_all
from edgekd.files import write_atomic
from edgekd.types import Precision

HERE = Path(__file__).parent
ERROR = 0.04
"""Standard deviation of the logarithm of one published median."""

SCATTER = 0.05
"""Of what the classes do not see of a network."""

WITHIN_90 = 1.645
"""Standard deviations that hold nine of ten."""

PRECISIONS = {"fp32": Precision.FLOAT32, "int8": Precision.INT8}

FLOAT_EFFICIENCY = {
    "dense": (0.6, 0.5),
    "winograd": (0.6, 0.5),
    "convolution": (0.5, 0.5),
    "first": (0.3, 0.7),
    "depthwise": (0.06, 0.6),
    "depthwise-strided": (0.05, 0.6),
    "depthwise-large": (0.06, 0.6),
    "matrix": (0.5, 0.5),
    "vector": (0.3, 0.7),
    "transform": (0.5, 0.7),
    "traffic": (3.0, 0.8),
    "weights": (1.0, 0.6),
    "calls": (1.0, 0.8),
    "elementwise": (0.6, 0.8),
    "activation": (0.6, 0.8),
    "pool": (0.6, 0.8),
    "move": (0.6, 0.8),
    "other-calls": (1.0, 0.8),
}
INTEGER_EFFICIENCY = FLOAT_EFFICIENCY | {
    "first": (0.15, 0.7),
    "depthwise": (0.05, 0.6),
    "depthwise-strided": (0.04, 0.6),
    "depthwise-large": (0.03, 0.6),
    "elementwise": (0.2, 0.8),
    "activation": (0.2, 0.8),
    "pool": (0.2, 0.8),
    "move": (0.3, 0.8),
}


@dataclass(frozen=True, kw_only=True)
class Board:
    """What is known of a board before anything is measured on it.

    Attributes:
        gmacs: Peak of four cores by precision, 10^9 multiply-accumulates a second.
        gb_s: Twice what memcpy copies.
        call_us: Of one operator.
        kernels: By precision: a faster kernel wastes more on the same remainder.
    """

    gmacs: dict[str, float]
    gb_s: float
    call_us: float
    kernels: dict[str, Kernels]


BOARDS = {
    "Raspberry Pi 4": Board(
        gmacs={"fp32": 24.0, "int8": 48.0},
        gb_s=4.0,
        call_us=10.0,
        kernels={
            "fp32": Kernels(depth=16, outputs=16, rows=8),
            "int8": Kernels(depth=64, outputs=16, rows=8),
        },
    ),
    "Firefly RK3588S": Board(
        gmacs={"fp32": 76.8, "int8": 307.2},
        gb_s=11.0,
        call_us=5.0,
        kernels={
            "fp32": Kernels(depth=64, outputs=8, rows=4),
            "int8": Kernels(depth=128, outputs=32, rows=16),
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One network's published latency."""

    network: str
    architecture: str
    work: NDArray[np.float64]
    ms: float


def network(name: str) -> tuple[Network, str]:
    """Returns the network that a published row names, and its architecture."""
    if found := re.match(r"mobilenet-v1-([\d.]+)-(\d+)", name):
        return mobilenet_v1(float(found[1]), int(found[2])), "MobileNet v1"
    if found := re.match(r"efficientnet-lite(\d)", name):
        return efficientnet_lite(int(found[1])), "EfficientNet-lite"
    if found := re.match(r"mobilenet-v3-(large|small)(-minimalistic)?_(\d+)_([\d.]+)_", name):
        kind, mini, size, width = found.groups()
        net = mobilenet_v3(kind, float(width), int(size), minimalistic=bool(mini))
        return net, "MobileNet v3"
    raise ValueError(f"no architecture of that name: {name}")


def published(device: str, precision: str) -> list[Published]:
    """Returns every network once, with the median of its rows."""
    rows = defaultdict(list)
    with (HERE / "data" / "tflite.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if (row["device"], row["precision"]) == (device, precision):
                rows[row["model"]].append(float(row["latency_ms"]))
    found, kernels = [], BOARDS[device].kernels[precision]
    for name, values in sorted(rows.items()):
        net, architecture = network(name)
        operators = [layer.operator(PRECISIONS[precision]) for layer in net.layers]
        found.append(
            Published(
                network=net.name,
                architecture=architecture,
                work=work_of_all(operators, kernels).sum(0),
                ms=float(np.median(values)),
            )
        )
    return found


def prior(device: str, precision: str) -> Costs:
    """Returns what the board's peaks say."""
    board = BOARDS[device]
    efficiency = FLOAT_EFFICIENCY if precision == "fp32" else INTEGER_EFFICIENCY
    return prior_costs(board.gmacs[precision], board.gb_s, board.call_us, efficiency, SCATTER)


def left_out(
    items: Sequence[Published], start: Costs, key: Callable[[Published], str] | None
) -> dict[str, Any]:
    """Returns errors of networks that the fit has not seen.

    Args:
        items: Published latencies.
        start: Costs before them.
        key: What is left out together; None fits nothing.
    """
    errors, inside, widths = [], [], []
    for group in sorted({key(item) for item in items}) if key else [""]:
        seen = [item for item in items if key and key(item) != group]
        costs = start
        if seen:
            work = np.array([item.work for item in seen])
            costs = start.updated(work, np.array([item.ms for item in seen]), ERROR)
        for item in items:
            if key is None or key(item) == group:
                ratio = costs.milliseconds(item.work[None]) / item.ms
                half = WITHIN_90 * costs.deviation(item.work[None])
                errors.append(ratio - 1)
                inside.append(abs(np.log(ratio)) <= half)
                widths.append(np.exp(half) - 1)
    size = np.abs(errors)
    return {
        "median": round(float(np.median(size)), 4),
        "within_10_percent": round(float(np.mean(size <= 0.1)), 3),
        "in_90_percent_interval": round(float(np.mean(inside)), 3),
        "median_half_width": round(float(np.median(widths)), 3),
    }


def main() -> None:
    """Writes ``tflite.json`` and prints its table."""
    found = []
    for device in BOARDS:
        for precision in PRECISIONS:
            items, start = published(device, precision), prior(device, precision)
            found.append(
                {
                    "device": device,
                    "precision": precision,
                    "networks": len(items),
                    "peaks alone": left_out(items, start, None),
                    "network left out": left_out(items, start, lambda item: item.network),
                    "architecture left out": left_out(items, start, lambda i: i.architecture),
                }
            )
    document = {"command": "python benchmarks/latency/tflite.py", "rows": found}
    write_atomic(HERE / "tflite.json", json.dumps(document, indent=1) + "\n")
    print("| board | precision | left out | median error | within 10 % | in its 90 % interval |")
    print("|---|---|---|---|---|---|")
    for row in found:
        for name in ("peaks alone", "network left out", "architecture left out"):
            errors = row[name]
            print(
                f"| {row['device']} | {row['precision']} | {name} | {errors['median']:.1%} "
                f"| {errors['within_10_percent']:.0%} | {errors['in_90_percent_interval']:.0%} "
                f"(± {errors['median_half_width']:.0%}) |"
            )


if __name__ == "__main__":
    main()
