"""Networks that are given as objects: kept in the run directory, so that any command goes on."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from edgekd.config.recipe import Recipe, override
from edgekd.run.directory import Asked, RunDirectory, asked_of, default_folder

if TYPE_CHECKING:
    from torch import nn

_STANDS_FOR = "network-{}.pt2"


def is_network(value: object) -> TypeGuard[nn.Module]:
    """Returns whether a value is a ``torch.nn.Module``, without importing torch for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


@dataclass(frozen=True, slots=True)
class GivenNetworks:
    """The networks among the arguments of a call."""

    nets: list[nn.Module] = field(default_factory=list)

    def named(self, value: Any) -> Any:  # noqa: ANN401 - what `compress` takes
        """Returns what stands for a network in a recipe until it is kept; others as they are."""
        if not is_network(value):
            return value
        self.nets.append(value)
        return _STANDS_FOR.format(len(self.nets) - 1)

    def kept(
        self, recipe: Recipe, command: str, target: str, out: Path | None
    ) -> tuple[Recipe, Path]:
        """Returns the recipe with the files of the networks, and the run directory they lie in.

        Args:
            recipe: With what `named` returned.
            command: ``compress`` or ``train``.
            target: Id of the device profile.
            out: Run directory; None for one named after data and target.

        Raises:
            ModelError: A network cannot be exported.
            RunError: The run directory is in use, or somebody else's.
        """
        with tempfile.TemporaryDirectory() as draft:
            files = {
                _STANDS_FOR.format(index): _written(net, recipe, Path(draft))
                for index, net in enumerate(self.nets)
            }
            bare = _renamed(recipe, {name: path.name for name, path in files.items()})
            asked = asked_of(command, bare, target)
            folder = out or default_folder(asked)
            if files:
                _move(list(files.values()), folder, asked)
        places = {name: str((folder / path.name).resolve()) for name, path in files.items()}
        return _renamed(recipe, places), folder


def _written(net: nn.Module, recipe: Recipe, folder: Path) -> Path:
    """Returns the file of a network: a checkpoint of EdgeKD's own families, else a program."""
    from edgekd.core.files import sha256_of
    from edgekd.nets.card import Card, save_net
    from edgekd.nets.program import keep_program

    card = getattr(net, "card", None)
    if not isinstance(card, Card):
        size = recipe.input
        return keep_program(net, (1, size.channels, size.height, size.width), folder)
    path = folder / "checkpoint.safetensors"
    save_net(path, net, card)
    return path.rename(folder / f"{card.architecture}-{sha256_of(path)[:12]}.safetensors")


def _renamed(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """Returns the recipe with other names of the networks' files."""

    def current(source: str | None) -> str | None:
        # On its way into the recipe a file's name became a path.
        return names.get(Path(source).name, source) if source else source

    teacher, student = recipe.teacher, recipe.student
    return override(
        recipe,
        {
            "teacher.model": current(teacher.model),
            "teacher.others": [current(other) for other in teacher.others],
            "student.architecture": current(student.architecture),
        },
    )


def _move(files: list[Path], folder: Path, asked: Asked) -> None:
    with RunDirectory(folder, asked):
        for file in files:
            if not (folder / file.name).exists():
                shutil.move(file, folder / file.name)
