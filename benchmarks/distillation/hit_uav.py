"""HIT-UAV: which distillation methods help a small detector on a drone's thermal camera.

    python benchmarks/distillation/hit_uav.py grid  --data $EDGEKD_DATA/hit_uav --work WORK
    python benchmarks/distillation/hit_uav.py candidates --data $EDGEKD_DATA/hit_uav --work WORK
    python benchmarks/distillation/hit_uav.py final --data $EDGEKD_DATA/hit_uav --work WORK
    python benchmarks/distillation/hit_uav.py coarse --data $EDGEKD_DATA/hit_uav --work WORK
    python benchmarks/distillation/hit_uav.py large --data $EDGEKD_DATA/hit_uav --work WORK

``grid`` compares methods on a development split of the training images that is cut by sequence, in
a fixed and small number of steps; ``candidates`` trains its best there for as long as the recipe
that ships. ``final`` trains the winner and the student without a teacher by that recipe on all
training images and reads the validation images once a row; ``coarse`` does so without a level at
stride 4, ``large`` at a larger input.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from experiment import RESULTS, Row, run_row, show

from edgekd.config.catalog import catalog_folder
from edgekd.config.recipe import Recipe, load_recipe, override
from edgekd.core.files import write_atomic
from edgekd.distill.method import known_method

CLASSES = ("Person", "Car", "Bicycle")
"""Judged together; OtherVehicle has 12 boxes in val and is reported apart."""

LONGEST_GAP = 40
"""Frame numbers further apart than this belong to different sequences."""

HELD_OUT = 5
"""Every fifth sequence is for development."""

GRID_VIEWS, FINAL_VIEWS = 20, 40
"""Fixed views an image that every row with a teacher shares, where its recipe has no number."""

MODEL = catalog_folder("models") / "hit-uav"

SINGLE = (
    "logits",
    "boxes",
    "dense-soft-labels",
    "dense-logit-matching",
    "localization",
    "teacher-boxes",
    "crosskd",
    "pkd",
    "hints",
    "attention",
    "cwd",
    "mgd",
    "rkd",
    "similarity",
)
"""Each runs alone, at its default weight."""

METHODS: dict[str, dict[str, Any]] = {
    "no-kd": {},
    "logits+boxes": {"logits": 1.0, "boxes": 2.0},
    **{name: {name: known_method(name).weight} for name in SINGLE},
    "logits-3+boxes-6": {"logits": 3.0, "boxes": 6.0},
    "logits-10+boxes-20": {"logits": 10.0, "boxes": 20.0},
    "logits-10+boxes-8+pkd-12": {"logits": 10.0, "boxes": 8.0, "pkd": 12.0},
    "logits-10+boxes-20+pkd-8": {"logits": 10.0, "boxes": 20.0, "pkd": 8.0},
    "logits-30+boxes-20+pkd-8": {"logits": 30.0, "boxes": 20.0, "pkd": 8.0},
    "logits-5+boxes-20+pkd-8": {"logits": 5.0, "boxes": 20.0, "pkd": 8.0},
    "logits-20+boxes-40+pkd-8": {"logits": 20.0, "boxes": 40.0, "pkd": 8.0},
    "logits-10+boxes-20+pkd-8, half the task": {"logits": 10.0, "boxes": 20.0, "pkd": 8.0},
    "logits+boxes+pkd": {"logits": 1.0, "boxes": 2.0, "pkd": 4.0},
    "logits+boxes+teacher-boxes": {"logits": 1.0, "boxes": 2.0, "teacher-boxes": 0.2},
    "teacher-boxes-hard": {"teacher-boxes": {"weight": 0.2, "soft": 0.0}},
}
CANDIDATES = ("no-kd", "logits-10+boxes-20", "logits-10+boxes-20+pkd-8")
"""Rows of ``candidates``."""

SPLIT_TABLES: dict[str, tuple[str, tuple[str, ...], int]] = {
    "grid": ("grid", tuple(METHODS), GRID_VIEWS),
    "candidates": ("default", CANDIDATES, FINAL_VIEWS),
}
"""Tables on the development split: recipe, rows and views."""

RECIPES = {"final": "default", "coarse": "coarse", "large": "large"}

EQUAL_TIME = "no-kd-wall"
"""Trains without a teacher for as long as the student with one takes, the teacher's answers
included."""

TASK_WEIGHT = {"logits-10+boxes-20+pkd-8, half the task": 0.5}
"""Of the loss on annotation, where it is not 1."""


def development_split(data: Path, folder: Path) -> Path:
    """Returns a COCO folder whose train and val are both cut from the training subset, by sequence.

    A sequence is a run of frame numbers without a gap longer than `LONGEST_GAP`.
    """
    if (folder / "annotations" / "val.json").exists():
        return folder
    whole = json.loads((data / "annotations" / "train.json").read_text(encoding="utf-8"))
    listed = (data / "train_subset_600.txt").read_text(encoding="utf-8").split()
    names = {Path(line).name for line in listed}
    images = sorted((i for i in whole["images"] if i["filename"] in names), key=_frame)
    held: set[Any] = set()
    sequence = 0
    for before, image in zip([images[0], *images], images, strict=False):
        sequence += _frame(image) - _frame(before) > LONGEST_GAP
        if sequence % HELD_OUT == HELD_OUT // 2:
            held.add(image["id"])
    for split in ("train", "val"):
        kept = [i for i in images if (i["id"] in held) == (split == "val")]
        ids = {i["id"] for i in kept}
        boxes = [a for a in whole["annotation"] if a["image_id"] in ids]
        part = {**whole, "images": kept, "annotation": boxes}
        (folder / split).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / split).exists():
            (folder / split).symlink_to((data / "train").resolve())
        write_atomic(folder / "annotations" / f"{split}.json", json.dumps(part))
    return folder


def _frame(image: dict[str, Any]) -> int:
    return int(Path(image["filename"]).stem.rpartition("_")[2])


def on_split(table: str, data: Path, work: Path, only: list[str]) -> None:
    """Trains rows of `METHODS` on the development split."""
    recipe_name, names, views = SPLIT_TABLES[table]
    split = development_split(data, work / "hit-uav-dev")
    base = load_recipe(MODEL / "recipes" / f"{recipe_name}.yaml")
    for name in only or names:
        recipe = _recipe(base, split, work, METHODS[name], views=base.teacher.cache_views or views)
        recipe = override(recipe, {"distill.task_weight": TASK_WEIGHT.get(name, 1.0)})
        row = Row(name=name, recipe=recipe, base=None if name == "no-kd" else "no-kd")
        show(run_row(row, work, f"hit-uav-{table}", CLASSES))


def final(table: str, data: Path, work: Path, only: list[str], seeds: list[int]) -> None:
    """Trains the deciding rows by one of the recipes."""
    base = load_recipe(MODEL / "recipes" / f"{RECIPES[table]}.yaml")
    steps = base.distill.training.steps
    winner = dict(base.distill.methods or {})
    rows: dict[str, tuple[dict[str, Any], float | None, str | None]] = {
        "no-kd": ({}, 1, None),
        "kd": (winner, 1, "no-kd"),
        EQUAL_TIME: ({}, None, "kd"),
        "no-kd-twice": ({}, 2, "no-kd"),
        "kd-twice": (winner, 2, "no-kd"),
    }
    for name in only or ("no-kd", "kd", EQUAL_TIME, "no-kd-twice"):
        methods, times, base_of = rows[name]
        count = round((times or _teachers_time(table)) * steps)
        for seed in seeds if name in ("no-kd", "kd") else seeds[:1]:
            views = base.teacher.cache_views or FINAL_VIEWS
            recipe = _recipe(base, data, work, methods, views=views, seed=seed)
            recipe = override(recipe, {"distill.training.steps": count})
            against = base_of and f"{base_of}-seed{seed}"
            row = Row(name=f"{name}-seed{seed}", recipe=recipe, base=against)
            show(run_row(row, work, f"hit-uav-{table}", CLASSES))


def _teachers_time(table: str) -> float:
    """Returns what the student with a teacher took, in times of the student alone, to a tenth."""
    folder = RESULTS / f"hit-uav-{table}"
    taught, alone = (
        json.loads((folder / f"{name}-seed0.json").read_text(encoding="utf-8"))["train_seconds"]
        for name in ("kd", "no-kd")
    )
    return round(taught / alone, 1)


def _recipe(
    base: Recipe, data: Path, work: Path, methods: dict[str, Any], *, views: int, seed: int = 0
) -> Recipe:
    return override(
        base,
        {
            "target": "raspberry-pi",
            "seed": seed,
            "data.path": str(data),
            "teacher.model": str(MODEL / "teacher.safetensors"),
            "teacher.cache": str(work / "teacher-cache"),
            "teacher.cache_views": views,
            "distill.methods": methods,
            "distill.baseline": False,
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", methods=[*SPLIT_TABLES, *RECIPES])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.what in SPLIT_TABLES:
        on_split(arguments.what, arguments.data, arguments.work, arguments.only)
    else:
        final(arguments.what, arguments.data, arguments.work, arguments.only, arguments.seeds)
