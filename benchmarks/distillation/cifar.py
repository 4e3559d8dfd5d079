"""CIFAR-10 (JPEG q75 copy): a ResNet-8 taught by a fine-tuned ResNet-56, a tenth of its size.

    python benchmarks/distillation/cifar.py --data $EDGEKD_DATA --work WORK

The images are a lossy copy (JPEG, quality 75) of 20,000 of the training and all 10,000 test images:
figures are not to be held against published ones. The teacher starts from the published ResNet-56
weights and is fine-tuned on the copy. Methods are compared on a fifth of the training images;
``test`` is read once for the deciding rows. ``no-kd-twice`` asks whether the student without a
teacher has converged.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

from experiment import CPU, RESULTS, Row, run_row, show

from edgekd import pipeline
from edgekd.files import write_atomic
from edgekd.progress import PlainProgress
from edgekd.recipe import Recipe, override
from edgekd.strict import to_mapping

NETS = Path(__file__).resolve().parent.parent / "own_nets" / "resnet_cifar.py"
GRID_STEPS, STEPS = 1500, 4000
METHODS: dict[str, dict[str, Any]] = {
    "no-kd": {},
    "soft-labels-T2": {"soft-labels": {"weight": 1.0, "temperature": 2.0}},
    "soft-labels-T4": {"soft-labels": {"weight": 1.0, "temperature": 4.0}},
    "hard-labels": {"hard-labels": 1.0},
    "logit-matching": {"logit-matching": 0.2},
    "dkd": {"dkd": {"weight": 0.5, "alpha": 1.0, "beta": 8.0, "temperature": 4.0}},
}


def unpacked(data: Path, work: Path) -> Path:
    """Returns an image folder with the pictures of the zip file."""
    folder = work / "cifar10-jpg"
    if not (folder / "done").exists():
        with zipfile.ZipFile(data / "cifar10_jpg" / "cifar10_jpg_train20k_test10k.zip") as archive:
            archive.extractall(folder)
        (folder / "done").touch()
    return folder


def base_recipe(data: Path, steps: int) -> Recipe:
    """Returns what every row has in common."""
    return override(
        Recipe(),
        {
            "target": "raspberry-pi",
            "data.path": str(data),
            "input": {"height": 32, "width": 32, "channels": 3},
            "network": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
            "augmentation": {
                "scale": [1.0, 1.0], "stretch": 0.0, "shift": 0.125, "horizontal_flip": 0.5,
                "brightness": 0.0, "gamma": 0.0, "colour": 0.0,
            },
            "distill.training": {
                "steps": steps, "batch_size": 128, "learning_rate": 0.002, "ema": 0.995,
                "weight_decay": 0.05, "precision": "float32",
            },
        },
    )  # fmt: skip


def teacher(data: Path, published: Path, work: Path, steps: int) -> Path:
    """Returns the weights of the ResNet-56, fine-tuned on the copy; writes its figures."""
    recipe = override(
        base_recipe(data, steps),
        {
            "student.architecture": f"{NETS}:build_resnet56",
            "student.checkpoint": str(published),
            "distill.methods": {},
            "distill.training.learning_rate": 2e-4,
            "data.val": "test",
        },
    )
    folder = work / "cifar-teacher"
    checkpoint, assessment = pipeline.train(
        recipe, folder, progress=PlainProgress(interval_s=60), torch_device=CPU
    )
    (row,) = assessment.rows
    write_atomic(RESULTS / "cifar-teacher.json", json.dumps(to_mapping(row), indent=1) + "\n")
    return checkpoint


def main(
    data: Path, work: Path, only: list[str], deciding: list[str], seeds: list[int], *, twice: bool
) -> None:
    """Trains the teacher, compares the methods, and reads the test images for the deciding rows."""
    images = unpacked(data, work)
    published = data / "models" / "cifar10_resnet_akamaster" / "resnet56-4bfd9763.th"
    weights = teacher(images, published, work, steps=600)
    for name in only or METHODS:
        recipe = _recipe(images, weights, work, GRID_STEPS, METHODS[name], seed=0)
        show(run_row(Row(name=name, recipe=recipe, base=_base(name)), work, "cifar-grid", ()))
    rows = [(name, "", STEPS) for name in deciding] + [("no-kd", "-twice", 2 * STEPS)] * twice
    for name, suffix, steps in rows:
        for seed in seeds:
            recipe = _recipe(images, weights, work, steps, METHODS[name], seed=seed)
            recipe = override(recipe, {"data.val": "test"})
            base = f"no-kd-seed{seed}" if suffix or name != "no-kd" else None
            row = Row(name=f"{name}{suffix}-seed{seed}", recipe=recipe, base=base)
            show(run_row(row, work, "cifar-final", ()))


def _base(name: str) -> str | None:
    return None if name == "no-kd" else "no-kd"


def _recipe(
    images: Path, weights: Path, work: Path, steps: int, methods: dict[str, Any], *, seed: int
) -> Recipe:
    return override(
        base_recipe(images, steps),
        {
            "seed": seed,
            "student.architecture": f"{NETS}:build_resnet8",
            "teacher.model": f"{NETS}:build_resnet56",
            "teacher.weights": str(weights),
            "teacher.cache": str(work / "teacher-cache"),
            "teacher.cache_views": 10,
            "distill.methods": methods,
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--deciding", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--twice", action="store_true")
    options = parser.parse_args()
    main(
        options.data,
        options.work,
        options.only,
        options.deciding,
        options.seeds,
        twice=options.twice,
    )
