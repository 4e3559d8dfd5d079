"""What keeping freed memory saves: CPU time of a training step with and without.

    python benchmarks/train_speed.py

Each round starts one process with the C library as it is and one with `keep_freed_memory`, in turn,
so that a busy machine slows both. CPU time counts, user's and system's: it is what the pages cost.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from edgekd.files import write_atomic
from edgekd.nets.card import Card, build
from edgekd.training.allocator import keep_freed_memory

ROUNDS, STEPS, WARM_UP = 3, 12, 3
CARD = Card(architecture="edgedet-n", classes=("a", "b"), height=384, width=480, channels=1)
WAYS = ("as it is", "kept")


def seconds(way: str) -> float:
    """Returns the median CPU seconds of a step: a forward and a backward pass of 16 images."""
    if way == "kept" and not keep_freed_memory():
        raise SystemExit("this C library has nothing to set")
    torch.set_num_threads(1)
    net = build(CARD, seed=0).train()
    images = torch.randn(16, *CARD.input_shape[1:]).to(memory_format=torch.channels_last)
    spent = []
    for _ in range(WARM_UP + STEPS):
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = net(images)
        torch.stack([o.float().square().mean() for o in outputs]).sum().backward()
        net.zero_grad()
        spent.append(time.process_time() - began)
    return statistics.median(spent[WARM_UP:])


def main() -> None:
    """Measures both ways and writes ``train_speed.json`` beside this file."""
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
        "kept_to_as_it_is": round(median["kept"] / median["as it is"], 3),
    }
    path = Path(__file__).with_suffix(".json")
    write_atomic(path, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(seconds(sys.argv[1]))
    else:
        main()
