"""BCCD: single distillation methods and their combination on a small microscope set.

    python benchmarks/distillation/bccd.py --data $EDGEKD_DATA/bccd --work WORK

The teacher is trained by `edgekd train` with ``benchmarks/bccd/recipe.yaml``, as for the run in
``benchmarks/bccd``. Rows with a teacher share its answers about twenty fixed views an image. Every
row reads the same 87 validation images: the set is too small to cut a development split from it, so
the winner here is not an unbiased one, and the table says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiment import Row, run_row, show, train_teacher

from edgekd.config.recipe import load_recipe, override

RECIPE = Path(__file__).resolve().parent.parent / "bccd" / "recipe.yaml"
CLASSES = ("Platelets", "RBC", "WBC")
METHODS: dict[str, dict[str, Any]] = {
    "no-kd": {},
    "logits": {"logits": 1.0},
    "boxes": {"boxes": 2.0},
    "teacher-boxes": {"teacher-boxes": 0.2},
    "crosskd": {"crosskd": 0.3},
    "pkd": {"pkd": 4.0},
    "logits+boxes": {"logits": 1.0, "boxes": 2.0},
    "logits+boxes+pkd": {"logits": 1.0, "boxes": 2.0, "pkd": 4.0},
    "logits-10+boxes-20": {"logits": 10.0, "boxes": 20.0},
    "logits-10+boxes-20+pkd": {"logits": 10.0, "boxes": 20.0, "pkd": 4.0},
}


def main(data: Path, work: Path, steps: int, only: list[str]) -> None:
    """Trains the teacher where it is not there yet, then every row."""
    base = override(load_recipe(RECIPE), {"data.path": str(data)})
    teaching = override(base, {"student.architecture": "edgedet-m", "distill.methods": {}})
    checkpoint = train_teacher("bccd-teacher", teaching, work)
    for name in only or METHODS:
        recipe = override(
            base,
            {
                "teacher.model": str(checkpoint),
                "teacher.cache": str(work / "teacher-cache"),
                "teacher.cache_views": 20,
                "distill.methods": METHODS[name],
                "distill.baseline": False,
                "distill.training.steps": steps,
            },
        )
        row = Row(name=name, recipe=recipe, base=None if name == "no-kd" else "no-kd")
        show(run_row(row, work, "bccd", CLASSES))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    main(options.data, options.work, options.steps, options.only)
