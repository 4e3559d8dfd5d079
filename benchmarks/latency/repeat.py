"""Measures files twice on this computer, idle and busy: how well a median repeats.

    python benchmarks/latency/repeat.py MODEL [MODEL ...] [--pairs 5]

A pair is the same file measured twice, one after the other; the busy pair runs beside one process
for each CPU that computes without pause. Writes ``repeat.json`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekd.commands.latency import measure_file
from edgekd.core.host import cpu_model
from edgekd.measure.on_board import BoardMeasurement, Protocol

MARK = 0.03


@contextmanager
def busy() -> Iterator[None]:
    """Keeps every CPU at work while it is entered."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in os.sched_getaffinity(0)]  # noqa: S603
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def pair(model: Path, protocol: Protocol) -> dict[str, Any]:
    """Returns two medians in ms, how far they are apart, and what was said of the machine."""
    found = [measure_file(model, protocol) for _ in range(2)]
    medians = [median(one) for one in found]
    return {
        "median_ms": [round(value, 4) for value in medians],
        "apart": round(max(medians) / min(medians) - 1, 4),
        "others_busy": [round(one.others_busy or 0.0, 2) for one in found],
        "notes": sorted({note for one in found for note in one.notes}),
    }


def median(found: BoardMeasurement) -> float:
    """Returns the median; the agent always tells one."""
    if found.timing.median_ms is None:
        raise SystemExit(f"{found.where}: no median")
    return found.timing.median_ms


def main(models: list[Path], pairs: int) -> None:
    """Measures, prints and stores."""
    protocol, result = Protocol(), {}
    for model in models:
        idle = [pair(model, protocol) for _ in range(pairs)]
        with busy():
            loaded = pair(model, protocol)
        result[model.name] = {"idle": idle, "busy": loaded}
        worst = max(one["apart"] for one in idle)
        print(f"{model.name}: idle pairs {[one['apart'] for one in idle]}, mark {MARK}: {worst}")
        print(f"{model.name}: busy {loaded['apart']}, said: {loaded['notes']}")
    record = {
        "command": "python benchmarks/latency/repeat.py MODEL ...",
        "measured on": cpu_model(),
        "files": result,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    main(options.models, options.pairs)
