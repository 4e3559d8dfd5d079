"""CIFAR-10 (JPEG q75 copy): a ResNet-8 taught by a fine-tuned ResNet-56, an eleventh of its size.

    python benchmarks/distillation/cifar.py --data $EDGEKD_DATA --work WORK --images 400

The images are a lossy copy (JPEG, quality 75) of 20,000 of the training and all 10,000 test images:
figures are not to be held against published ones. The teacher starts from the published ResNet-56
weights, which have seen all of CIFAR-10's training images, and is fine-tuned on 16,000 of the copy.
The student has ``--images`` of each class, or all 1,600. Methods are compared on 4,000 images that
it does not learn from; ``test`` is read once for the deciding rows. ``no-kd-twice`` asks whether
the student without a teacher has converged.
"""

from __future__ import annotations

import argparse
import shutil
import zipfile
from pathlib import Path
from typing import Any

from experiment import Row, run_row, show, train_teacher

from edgekd.config.recipe import Recipe, override
from edgekd.data.readers.folder import read

NETS = Path(__file__).resolve().parent.parent / "own_nets" / "resnet_cifar.py"
GRID_STEPS, STEPS = 1500, 3000
ASKED = 160_000
METHODS: dict[str, dict[str, Any]] = {
    "no-kd": {"distill.methods": {}},
    "soft-labels-T2": {"distill.methods": {"soft-labels": {"weight": 1.0, "temperature": 2.0}}},
    "soft-labels-T4": {"distill.methods": {"soft-labels": {"weight": 1.0, "temperature": 4.0}}},
    "soft-labels-T4, a tenth of the task": {
        "distill.methods": {"soft-labels": {"weight": 1.0, "temperature": 4.0}},
        "distill.task_weight": 0.1,
    },
    "hard-labels": {"distill.methods": {"hard-labels": 1.0}},
    "logit-matching": {"distill.methods": {"logit-matching": 0.2}},
    "logit-matching-1": {"distill.methods": {"logit-matching": 1.0}},
    "dkd": {
        "distill.methods": {"dkd": {"weight": 0.5, "alpha": 1.0, "beta": 8.0, "temperature": 4.0}}
    },
}
UNLABELLED = "-unlabelled"
"""Ends the name of a row that has the other training images too, without their labels."""
LABEL_FREE = tuple(f"{name}{UNLABELLED}" for name in ("soft-labels-T2", "logit-matching"))


def unpacked(data: Path, work: Path) -> Path:
    """Returns an image folder with the pictures of the zip file."""
    folder = work / "cifar10-jpg"
    if not (folder / "done").exists():
        with zipfile.ZipFile(data / "cifar10_jpg" / "cifar10_jpg_train20k_test10k.zip") as archive:
            archive.extractall(folder)
        (folder / "done").touch()
    return folder


def thinned(whole: Path, images: int | None) -> Path:
    """Returns a folder with so many training images of each class, and val and test as they are.

    The other training images are in a folder beside it, unsorted.
    """
    if images is None:
        return whole
    folder = whole.with_name(f"{whole.name}-{images}")
    if (folder / "done").exists():
        return folder
    rest = unlabelled(folder)
    rest.mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        by_class: dict[str, list[Path]] = {}
        for sample in read(whole, split).samples:
            by_class.setdefault(sample.path.parent.name, []).append(sample.path)
        for name, paths in by_class.items():
            count = min(images, len(paths)) if split == "train" else len(paths)
            chosen = {paths[index * len(paths) // count] for index in range(count)}
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for path in paths:
                known = folder / split / name / path.name
                shutil.copyfile(path, known if path in chosen else rest / f"{name}-{path.name}")
    (folder / "done").touch()
    return folder


def unlabelled(folder: Path) -> Path:
    """Returns where the images are that a thinned folder leaves out."""
    return folder.with_name(folder.name + UNLABELLED)


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
    return train_teacher("cifar-teacher", recipe, work)


def main(options: argparse.Namespace) -> None:
    """Trains the teacher, compares the methods, and reads the test images for the deciding rows."""
    work = options.work
    whole = unpacked(options.data, work)
    published = options.data / "models" / "cifar10_resnet_akamaster" / "resnet56-4bfd9763.th"
    weights = teacher(whole, published, work, steps=600)
    images = thinned(whole, options.images)
    table = f"cifar-{options.images or 'all'}"
    for name in options.only or [*METHODS, *(LABEL_FREE if options.images else ())]:
        recipe = _recipe(images, weights, work, name, GRID_STEPS, seed=0)
        show(run_row(Row(name=name, recipe=recipe, base=_base(name)), work, table, ()))
    rows = [(name, "", STEPS) for name in options.deciding]
    rows += [("no-kd", "-twice", 2 * STEPS)] * options.twice
    for name, suffix, steps in rows:
        for seed in options.seeds:
            recipe = _recipe(images, weights, work, name, steps, seed)
            recipe = override(recipe, {"data.val": "test"})
            base = f"no-kd-seed{seed}" if suffix or name != "no-kd" else None
            row = Row(name=f"{name}{suffix}-seed{seed}", recipe=recipe, base=base)
            show(run_row(row, work, f"{table}-final", ()))


def _base(name: str) -> str | None:
    return None if name == "no-kd" else "no-kd"


def _recipe(images: Path, weights: Path, work: Path, name: str, steps: int, seed: int) -> Recipe:
    method = name.removesuffix(UNLABELLED)
    more = {"data.unlabelled": str(unlabelled(images))} if method != name else {}
    seen = len(read(images, "train").samples)
    seen += sum(1 for _ in unlabelled(images).iterdir()) if more else 0
    return override(
        base_recipe(images, steps),
        {
            "seed": seed,
            "student.architecture": f"{NETS}:build_resnet8",
            "teacher.model": f"{NETS}:build_resnet56",
            "teacher.weights": str(weights),
            "teacher.cache": str(work / "teacher-cache"),
            "teacher.cache_views": round(ASKED / seen),
            **METHODS[method],
            **more,
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--deciding", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--twice", action="store_true")
    main(parser.parse_args())
