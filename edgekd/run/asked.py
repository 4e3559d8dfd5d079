"""The recipe that a command or a call asks for, and where its networks are trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.config.plugins import load_plugins
from edgekd.config.recipe import Recipe, load_recipe, override
from edgekd.core.errors import RecipeError
from edgekd.run.inputs import demo_recipe, fitted_recipe

if TYPE_CHECKING:
    import torch

MODEL_FILES = (".safetensors", ".pt2", ".yaml", ".yml", ".onnx", ".tflite")
"""Endings by which a file is told from an architecture such as ``edgedet-n0.75``."""


def asked_recipe(
    *,
    recipe: Path | None,
    data: Path | None,
    teachers: tuple[str, ...],
    size: str | None,
    changes: dict[str, Any],
) -> Recipe:
    """Returns the recipe that is started from, with what is asked for on top.

    Args:
        recipe: A file to start from. Without it the recipe is fitted to the data set.
        data: The data set; None for the recipe's own, or for the built-in demo.
        teachers: Files or functions; none for the one that EdgeKD ships.
        size: Letter of the student's family, such as ``m``, where the file does not say it.
        changes: Dotted recipe keys.

    Raises:
        RecipeError: A key or a value is not legal.
        DataError: The data set is not recognised.
    """
    plugins = [Path(path).resolve() for path in changes.get("plugins", ())]
    load_plugins(plugins)  # One may read the data set.
    if recipe:
        start = load_recipe(recipe)
    elif data:
        start, _ = fitted_recipe(data.resolve(), own_teacher=bool(teachers))
    else:
        start = demo_recipe()
    base: dict[str, Any] = {}
    if size and not recipe:
        family = start.student.architecture.partition("-")[0]
        base["student.architecture"] = f"{family}-{size}"
    if data:
        base["data.path"] = str(data.resolve())
    if teachers:
        base["teacher.model"], *others = map(resolved_source, teachers)
        base["teacher.others"] = others
    if plugins:
        changes = {**changes, "plugins": [str(path) for path in plugins]}
    return override(start, base | changes)


def resolved_source(source: str) -> str:
    """Returns a model's source with an absolute path; an architecture's name as it is."""
    path, colon, function = source.rpartition(":") if ".py:" in source else (source, "", "")
    is_path = bool(colon) or Path(path).suffix in MODEL_FILES
    return f"{Path(path).resolve()}{colon}{function}" if is_path else source


def training_device(name: str, threads: int | None = None) -> torch.device:
    """Returns the device that networks are trained on.

    Args:
        name: ``cpu``, ``cuda`` or ``auto``.
        threads: Of the CPU; None leaves them as they are.

    Raises:
        RecipeError: It is not on this machine.
    """
    from edgekd.core.quiet import quietly

    with quietly():
        import torch
        import torchao.quantization.pt2e  # noqa: F401 - complains about GPU libraries on import

    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not (name.startswith("cuda") and torch.cuda.is_available()):
        raise RecipeError(f"torch device {name!r}: not on this machine; legal: cpu, auto")
    return torch.device(name)
