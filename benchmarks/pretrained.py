"""What the start that EdgeKD ships for `edgedet-n` is worth on data of another kind.

    python benchmarks/pretrained.py --data $EDGEKD_DATA/bccd --out benchmarks/pretrained.json
    python benchmarks/pretrained.py --short          # a few steps on rendered data, for CI

The student is trained on annotation alone, with and without the start, by the same seeds, steps and
views; what is left out is the teacher, so that nothing else is compared. The figure is the mean of
the differences of mAP, in points, and its 95 % interval by Student's t over the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from edgekd.config.recipe import load_recipe, override
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.host import cpu_model
from edgekd.core.progress import PlainProgress
from edgekd.pipeline import train
from edgekd.run.inputs import shipped_start

RECIPE = Path(__file__).parent / "bccd" / "recipe.yaml"
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Quantile of Student's t by degrees of freedom."""


def accuracy(data: Path, steps: int, seed: int, pretrained: bool, work: Path) -> float:
    """Returns mAP in points on the validation split."""
    recipe = override(
        load_recipe(RECIPE),
        {
            "data.path": str(data),
            "seed": seed,
            "student.pretrained": pretrained,
            "distill.methods": {},
            "distill.baseline": False,
            "distill.training.steps": steps,
        },
    )
    name = f"{'shipped' if pretrained else 'random'}-{steps}-{seed}"
    _, assessment = train(
        recipe, work / name, progress=PlainProgress(), torch_device=torch.device("cpu")
    )
    return 100 * float(assessment.rows[0].metrics.map)  # type: ignore[union-attr]


def worth(data: Path, steps: int, seeds: int, work: Path) -> dict[str, Any]:
    """Returns both columns of mAP and the difference with its interval."""
    random, shipped = (
        [accuracy(data, steps, seed, pretrained, work) for seed in range(seeds)]
        for pretrained in (False, True)
    )
    gains = [b - a for a, b in zip(random, shipped, strict=True)]
    half = T_95[seeds - 1] * statistics.stdev(gains) / math.sqrt(seeds) if seeds > 1 else None
    mean = statistics.mean(gains)
    return {
        "steps": steps,
        "random": random,
        "shipped": shipped,
        "gain": mean,
        "interval": [mean - half, mean + half] if half is not None else None,
    }


def main() -> None:
    """Trains every pair and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, help="Where runs lie and resume.")
    parser.add_argument("--steps", type=int, nargs="*", default=[150, 600])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        if options.short:
            from edgekd.data.demo.render import write_demo_set

            options.data = write_demo_set(work / "set", train=12, val=8)
            options.steps, options.seeds = [2], 2
        start = shipped_start("edgedet-n")
        if start is None:
            raise SystemExit("EdgeKD ships no start for edgedet-n")
        found = {
            "command": "python benchmarks/pretrained.py --data $EDGEKD_DATA/bccd",
            "start": {"file": start.name, "sha256": sha256_of(start)},
            "host": cpu_model(),
            "rows": [worth(options.data, s, options.seeds, work) for s in options.steps],
        }
    print(json.dumps(found, indent=1))
    if options.out:
        write_atomic(options.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
