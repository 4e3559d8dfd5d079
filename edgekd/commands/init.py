"""A commented recipe that fits a data set."""

from __future__ import annotations

from pathlib import Path

from edgekd.config.commented import commented_recipe
from edgekd.config.device import load_device
from edgekd.config.learning import DEFAULT_METHODS
from edgekd.config.recipe import override
from edgekd.core.errors import RecipeError
from edgekd.core.files import write_atomic
from edgekd.data.reader import recognise
from edgekd.run.inputs import fitted_recipe


def write_recipe(data: Path, target: str, out: Path, force: bool) -> str:
    """Writes a recipe that fits a data set, every default spelt out; returns what to do next.

    Raises:
        RecipeError: ``out`` exists and ``force`` is not set.
        DataError: The data set is not recognised.
    """
    device = load_device(target)
    if out.exists() and not force:
        raise RecipeError(f"{out}: exists; use --force to replace it, or --out for another name")
    fitted, train = fitted_recipe(data.resolve())
    methods = fitted.distill.methods
    if methods is None:
        methods = dict(DEFAULT_METHODS[train.task])
    named = str(Path(target).resolve()) if target.endswith((".yaml", ".yml")) else device.id
    recipe = override(fitted, {"target": named, "distill.methods": methods})
    header = (
        f"# EdgeKD recipe for {data} ({recognise(data)}, {len(train.samples)} training images,\n"
        f"# classes: {', '.join(train.classes)}) on {device.name}.\n"
        "# Every key is here with its value and its meaning. Unknown keys are errors; a key that\n"
        "# is left out has its default. `edgekd methods` lists what distill.methods may name.\n"
    )
    write_atomic(out, header + commented_recipe(recipe))
    return (
        f"{out} written. Next: edgekd train --recipe {out} --student {train.task.family}-m "
        f"--out runs/teacher, then edgekd compress --recipe {out} "
        "--teacher runs/teacher/train/student.safetensors"
    )
