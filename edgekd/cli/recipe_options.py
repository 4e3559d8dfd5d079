"""The options that make up a recipe, and the recipe that they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekd.core.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from edgekd.config.recipe import Recipe
    from edgekd.core.progress import Progress

FOLDER = click.Path(path_type=Path)
Command = Callable[..., Any]


def recipe_options(command: Command) -> Command:
    """Adds the options that make up a recipe, for every command that trains."""
    options = [
        click.option("--recipe", "recipe_file", type=FOLDER, help="Recipe YAML (`edgekd init`)."),
        click.option("--target", help="Device id (`edgekd devices`) or a device YAML. [jetson]"),
        click.option("--data", type=FOLDER, help="Data set: COCO, YOLO, VOC, image folder, IDX."),
        click.option("--unlabelled", type=FOLDER, help="More training images, not annotated."),
        click.option(
            "--teacher",
            multiple=True,
            help="A .safetensors checkpoint, the .yaml card of a detector's file, or "
            "my_model.py:function. Several are averaged.",
        ),
        click.option(
            "--weights", type=FOLDER, help="State dict of a my_model.py:function teacher."
        ),
        click.option(
            "--student",
            help="Architecture, such as edgedet-n; `same` only makes the teacher integer; or "
            "my_model.py:function. [edgedet-n]",
        ),
        click.option("--input", "size", help="Input as HEIGHTxWIDTH, such as 320x320."),
        click.option("--channels", type=click.Choice(["1", "3"]), help="Grey (1) or RGB (3)."),
        click.option("--steps", type=click.IntRange(1), help="Distillation steps."),
        click.option("--qat-steps", type=click.IntRange(1), help="QAT steps."),
        click.option("--batch-size", type=click.IntRange(1), help="Images a step, in every loop."),
        click.option(
            "--ptq", is_flag=True, help="Calibrate instead of quantization-aware training."
        ),
        click.option(
            "--tune",
            is_flag=True,
            help="Keep the fewest layers in float that meet --max-map-drop.",
        ),
        click.option(
            "--fp16", is_flag=True, help="No int8: float16 where the device computes in it."
        ),
        click.option(
            "--budget",
            metavar="TIME",
            help="Choose width, depth and input of the student for this latency, such as 15ms.",
        ),
        click.option(
            "--baseline", is_flag=True, help="Also train the student without the teacher."
        ),
        click.option("--strict", is_flag=True, help="Any problem in the data set is an error."),
        click.option("--seed", type=int, help="Of weights, data order and augmentation. [0]"),
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any recipe key."
        ),
        click.option(
            "--plugin",
            "plugins",
            multiple=True,
            type=FOLDER,
            help="Python file that registers a method, a decoder or a reader.",
        ),
        click.option("--out", type=FOLDER, help="Run directory. [runs/<data>-<target>]"),
        click.option(
            "--torch-device", default="auto", help="cpu, cuda or auto.", show_default=True
        ),
        click.option("--threads", type=click.IntRange(1), help="CPU threads for training."),
        click.option("--verbose", is_flag=True, help="List every proof and every file."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


GATES = {
    "max_map_drop": "Points of mAP (or top-1) that int8 may lose.",
    "max_class_drop": "Points that the worst class may lose.",
    "max_latency": "Median on the target, such as 15ms; predicted where it is not this computer.",
    "max_size": "Of an int8 file, such as 400KiB.",
    "max_memory": "Peak memory of an int8 file here, such as 8MiB.",
}


def _load_plugins(_context: click.Context, _option: click.Parameter, files: Any) -> None:  # noqa: ANN401
    from edgekd.config.plugins import load_plugins

    load_plugins(files)


plugin_option = click.option(
    "--plugin",
    multiple=True,
    type=FOLDER,
    expose_value=False,
    callback=_load_plugins,
    help="Python file to run first, which registers a decoder or a reader.",
)
"""For commands on files and finished runs, which run no plugin that those refer to."""


def gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the release gates; one that is not met ends the command with exit code 4."""
    for name, text in reversed(GATES.items()):
        command = click.option(f"--{name.replace('_', '-')}", metavar="LIMIT", help=text)(command)
    return command


def gate_changes(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the recipe keys that the gates' flags set.

    Raises:
        RecipeError: A limit is not a number of its unit.
    """
    from edgekd.config.units import milliseconds, points, size_bytes

    readers: dict[str, tuple[str, Callable[[str], float]]] = {
        "max_map_drop": ("max_map_drop", points),
        "max_class_drop": ("max_class_drop", points),
        "max_latency": ("max_latency_ms", milliseconds),
        "max_size": ("max_size_bytes", size_bytes),
        "max_memory": ("max_memory_bytes", size_bytes),
    }
    return {
        f"gates.{key}": read(options[flag])
        for flag, (key, read) in readers.items()
        if options.get(flag) is not None
    }


def prepared(
    name: str, options: dict[str, Any], default_student: str | None = None
) -> tuple[Recipe, Path, Progress, torch.device]:
    """Returns recipe, run directory, progress and torch device from the command line."""
    recipe = _recipe(options, default_student)
    # Wrong recipes and targets must fail before torch, which takes seconds to import.
    from edgekd.config.device import load_device
    from edgekd.run.asked import training_device
    from edgekd.run.directory import asked_of, default_folder
    from edgekd.run.inputs import require_feasible

    device = load_device(recipe.target)
    if name == "compress":
        require_feasible(recipe, device)
    out = options["out"] or default_folder(asked_of(name, recipe, device.id))
    return (
        recipe,
        out,
        progress_for_terminal(),
        training_device(options["torch_device"], options["threads"]),
    )


def _recipe(options: dict[str, Any], default_student: str | None) -> Recipe:
    from edgekd.run.asked import asked_recipe

    return asked_recipe(
        recipe=options["recipe_file"],
        data=options["data"],
        teachers=options["teacher"],
        size=default_student,
        changes=_flag_changes(options) | _settings(options["settings"]),
    )


def _flag_changes(options: dict[str, Any]) -> dict[str, Any]:
    keys = {
        "target": ["target"],
        "seed": ["seed"],
        "steps": ["distill.training.steps"],
        "qat_steps": ["quantize.training.steps"],
        "batch_size": ["distill.training.batch_size", "quantize.training.batch_size"],
    }
    changes = {
        key: options[flag]
        for flag, dotted in keys.items()
        if options[flag] is not None
        for key in dotted
    }
    if options["plugins"]:
        changes["plugins"] = list(options["plugins"])
    paths = {"unlabelled": "data.unlabelled", "weights": "teacher.weights"}
    for flag, key in paths.items():
        if options[flag]:
            changes[key] = str(options[flag].resolve())
    if options["student"]:
        from edgekd.run.asked import resolved_source

        changes["student.architecture"] = resolved_source(options["student"])
    if options["budget"]:
        from edgekd.config.units import milliseconds

        changes["student.budget_ms"] = milliseconds(options["budget"])
    changes |= gate_changes(options)
    if options["channels"]:
        changes["input.channels"] = int(options["channels"])
    if options["size"]:
        changes |= _input_size(options["size"])
    for flag, key, value in (
        ("ptq", "quantize.mode", "ptq"),
        ("fp16", "quantize.mode", "none"),
        ("tune", "quantize.tune", True),
        ("baseline", "distill.baseline", True),
        ("strict", "data.strict", True),
    ):
        if options[flag]:
            changes[key] = value
    return changes


def _input_size(text: str) -> dict[str, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise RecipeError(f"--input {text!r}: expected HEIGHTxWIDTH, such as 320x320")
    return {"input.height": int(height), "input.width": int(width)}


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    from edgekd.config.yaml import parse_yaml_value

    changes = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise RecipeError(f"--set {pair!r}: expected KEY=VALUE, such as quantize.mode=ptq")
        changes[key] = parse_yaml_value(value, RecipeError)
    return changes


def progress_for_terminal() -> Progress:
    """Returns bars on a terminal, plain lines elsewhere."""
    from edgekd.core.progress import default_progress

    return default_progress()
