"""Whether bfloat16 trains faster than float32 on this processor: what ``precision: auto`` rests on.

    python benchmarks/train_precision.py

CPU time of a step (forward, backward) on one thread, the two precisions in turn. The figures of
each processor that this was run on stay in ``train_precision.json``.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import torch
from train_speed import BATCH, step_seconds

from edgekd.core.files import write_atomic
from edgekd.core.host import cpu_flags, cpu_model
from edgekd.nets.card import Card
from edgekd.training.allocator import keep_freed_memory
from edgekd.training.precision import resolved

ROUNDS, STEPS, WARM_UP = 3, 6, 2
NETWORKS = (("edgedet-n", 256, 320, 1), ("edgedet-m", 192, 256, 3))
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def seconds(architecture: str, shape: tuple[int, int, int], precision: str) -> float:
    """Returns the median CPU seconds of a training step; ``shape`` is height, width, channels."""
    height, width, channels = shape
    card = Card(
        architecture=architecture,
        classes=("a", "b"),
        height=height,
        width=width,
        channels=channels,
    )
    return step_seconds(card, steps=STEPS, warm_up=WARM_UP, bfloat16=precision == "bfloat16")


def main() -> None:
    """Measures this processor and adds it to ``train_precision.json`` beside this file."""
    keep_freed_memory()
    torch.set_num_threads(1)
    rows = []
    for architecture, *shape in NETWORKS:
        found: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        for _ in range(ROUNDS):
            for precision, values in found.items():
                values.append(seconds(architecture, (shape[0], shape[1], shape[2]), precision))
        ratios = [b / f for f, b in zip(found["float32"], found["bfloat16"], strict=True)]
        rows.append(
            {
                "network": f"{architecture}, {BATCH} x {shape[2]} x {shape[0]} x {shape[1]}",
                "cpu_seconds_per_step": {k: [round(v, 4) for v in found[k]] for k in found},
                "bfloat16_to_float32": round(statistics.median(ratios), 3),
            }
        )
    features = [feature for feature in FEATURES if feature in cpu_flags()]
    path = Path(__file__).with_suffix(".json")
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known["command"] = "python benchmarks/train_precision.py"
    known[f"{cpu_model()} ({', '.join(features)})"] = {
        "auto": resolved(torch.device("cpu"), "auto"),
        "rows": rows,
    }
    write_atomic(path, json.dumps(known, indent=1) + "\n")
    print(json.dumps(known, indent=1))


if __name__ == "__main__":
    main()
