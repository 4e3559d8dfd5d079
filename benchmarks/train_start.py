"""Trains what `edgedet-n` starts from: on rendered scenes, not the demo's, without a teacher.

    python benchmarks/train_start.py --work WORK --out models/start-edgedet-n/start.safetensors
    python benchmarks/train_start.py --short --out start.safetensors       # a few steps, for CI

An hour on two cores. Backbone and pyramid are kept, in float16; the head belongs to its classes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import safetensors.torch
import torch

from edgekd.config.recipe import Recipe, override
from edgekd.core.files import write_atomic
from edgekd.core.progress import PlainProgress
from edgekd.data.demo.render import write_demo_set
from edgekd.nets.card import METADATA_KEY, load_card, load_weights
from edgekd.pipeline import train

SEED = 2027
KEPT = ("backbone", "pyramid")


def trained(work: Path, scenes: int, steps: int) -> Path:
    """Returns the checkpoint of the whole network."""
    data = write_demo_set(work / "scenes", train=scenes, val=max(8, scenes // 30), seed=SEED)
    recipe = override(
        Recipe(),
        {
            "data.path": str(data),
            "input.height": 192,
            "input.width": 256,
            "augmentation.vertical_flip": 0.5,
            "student.pretrained": False,
            "distill.training.steps": steps,
            "distill.training.batch_size": 16,
            "distill.training.learning_rate": 0.003,
            "distill.training.ema": 0.999,
        },
    )
    checkpoint, _ = train(
        recipe, work / "run", progress=PlainProgress(), torch_device=torch.device("cpu")
    )
    return checkpoint


def without_head(checkpoint: Path) -> bytes:
    """Returns a checkpoint's backbone and pyramid as safetensors, in float16."""
    card = replace(load_card(checkpoint), classes=("object",))
    kept = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in load_weights(checkpoint).items()
        if name.partition(".")[0] in KEPT
    }
    return safetensors.torch.save(kept, {METADATA_KEY: json.dumps(asdict(card), sort_keys=True)})


def main() -> None:
    """Trains and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    scenes, steps = (12, 2) if options.short else (6000, 9000)
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = trained(options.work or Path(temporary), scenes, steps)
        write_atomic(options.out, without_head(checkpoint))


if __name__ == "__main__":
    main()
