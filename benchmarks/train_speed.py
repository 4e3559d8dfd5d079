"""What two measures save in training on a CPU: the CPU time of a step with and without each.

    python benchmarks/train_speed.py

`keep_freed_memory`, and strided depthwise convolutions in float32 amid bfloat16. Each round starts
one process a way, in turn, so that a busy machine slows all. CPU time counts, user's and system's:
it is what the pages cost.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from edgekd.core.files import write_atomic
from edgekd.nets.blocks import StridedDepthwise
from edgekd.nets.card import Card, build
from edgekd.training.allocator import keep_freed_memory

ROUNDS, STEPS, WARM_UP, BATCH = 3, 12, 3, 16
CARD = Card(architecture="edgedet-n", classes=("a", "b"), height=384, width=480, channels=1)
WAYS = ("neither", "memory kept", "both")


def seconds(way: str) -> float:
    """Returns the median CPU seconds of a step: a forward and a backward pass of 16 images."""
    if way != "neither" and not keep_freed_memory():
        raise SystemExit("this C library has nothing to set")
    if way != "both":
        StridedDepthwise.forward = nn.Conv2d.forward  # type: ignore[method-assign]
    torch.set_num_threads(1)
    return step_seconds(CARD, steps=STEPS, warm_up=WARM_UP, bfloat16=True)


def step_seconds(card: Card, *, steps: int, warm_up: int, bfloat16: bool) -> float:
    """Returns the median CPU seconds of a step of a fresh network: 16 images there and back."""
    net = build(card, seed=0).train()
    images = torch.randn(BATCH, *card.input_shape[1:]).to(memory_format=torch.channels_last)
    spent = []
    for _ in range(warm_up + steps):
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            outputs = net(images)
        torch.stack([o.float().square().mean() for o in outputs]).sum().backward()
        net.zero_grad()
        spent.append(time.process_time() - began)
    return statistics.median(spent[warm_up:])


def main() -> None:
    """Measures every way and writes ``train_speed.json`` beside this file."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            command = [sys.executable, __file__, way]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            found[way].append(float(done.stdout))
    median = {way: statistics.median(values) for way, values in found.items()}
    result = {
        "command": "python benchmarks/train_speed.py",
        "network": "edgedet-n, 16 x 1 x 384 x 480, bfloat16, one thread",
        "cpu_seconds_per_step": {k: [round(v, 4) for v in values] for k, values in found.items()},
        "memory_kept_to_neither": round(median["memory kept"] / median["neither"], 3),
        "both_to_memory_kept": round(median["both"] / median["memory kept"], 3),
    }
    path = Path(__file__).with_suffix(".json")
    write_atomic(path, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(seconds(sys.argv[1]))
    else:
        main()
