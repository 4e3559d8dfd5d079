"""What there is: device profiles, data sets, recipes."""

from __future__ import annotations

from pathlib import Path

from edgekd.api.common import Source
from edgekd.config.device import Device
from edgekd.config.device import list_devices as profiles
from edgekd.config.recipe import Recipe
from edgekd.config.recipe import load_recipe as recipe_in
from edgekd.core.types import Dataset
from edgekd.data.dataset import load as load_dataset


def read_dataset(path: Source, *, split: str = "train", format: str | None = None) -> Dataset:
    """Returns one split of a data set: samples, classes and problems, as every stage sees it.

    Args:
        path: Folder or file.
        split: ``train``, ``val`` or ``test``.
        format: Name of the format; None recognises it.

    Raises:
        DataError: It is not recognised or cannot be read.
    """
    return load_dataset(Path(path), split, format=format)


def list_devices() -> tuple[Device, ...]:
    """Returns every device profile."""
    return tuple(profiles())


def load_recipe(path: Source) -> Recipe:
    """Returns the recipe in a YAML file; paths in it are relative to its folder.

    Raises:
        RecipeError: The file is missing, is not YAML, or a key or value is not legal.
    """
    return recipe_in(Path(path))
