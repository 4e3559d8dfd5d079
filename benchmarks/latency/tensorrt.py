"""How well costs by kernel class predict TensorRT on Jetsons, and how much int8 gains on float16.

    python benchmarks/latency/tensorrt.py

Published latencies of `jetsons.py`; the questions are those of `leaving_out.py`. The ratio of int8
to float16 is predicted for every network left out in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jetsons import tensorrt_runs
from leaving_out import report
from population import guessed, population
from published import Run

from edgekd.core.types import Precision


def ratios(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns measured and predicted latency in int8 over float16, of networks left out."""
    halves = {run.board: run for run in runs if run.precision is Precision.FLOAT16}
    found = []
    for run in runs:
        if run.precision is Precision.INT8 and run.board in halves:
            half = halves[run.board]
            for name in run.names:
                times = [_left_out(one, name, runs) for one in (run, half)]
                measured = [float(one.ms[one.names.index(name)]) for one in (run, half)]
                found.append(
                    {
                        "board": run.board,
                        "network": name,
                        "measured": round(measured[0] / measured[1], 3),
                        "predicted": round(times[0] / times[1], 3),
                    }
                )
    return found


def _left_out(run: Run, name: str, runs: Sequence[Run]) -> float:
    peers = [r for r in runs if r.precision is run.precision and r.board != run.board]
    known = population(peers, guessed(run.kernels, run.precision))
    held = np.array([other == name for other in run.names])
    return run.teach(known, ~held).at(run.speed).milliseconds(run.work[held])


def main() -> None:
    """Writes ``tensorrt.json`` and prints its tables."""
    found = tensorrt_runs()
    kinds = dict.fromkeys(run.precision for run in found)
    pairs = ratios(found)
    errors = [abs(pair["predicted"] / pair["measured"] - 1) for pair in pairs]
    figures = {"median_error": round(float(np.median(errors)), 4), "pairs": pairs}
    groups = [[run for run in found if run.precision is kind] for kind in kinds]
    report("tensorrt", groups, int8_over_float16=figures)
    print(f"\nint8 over float16: median error {figures['median_error']:.1%}")
    for pair in pairs:
        print(f"| {pair['board']} | {pair['network']} | {pair['measured']} | {pair['predicted']} |")


if __name__ == "__main__":
    main()
