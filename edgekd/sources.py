"""Where a run gets its data and its teacher, the built-in demo included."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgekd.catalog import catalog_folder
from edgekd.data.dataset import load, summarise
from edgekd.data.demo import write_demo_set
from edgekd.device import Device
from edgekd.errors import DataError, RecipeError
from edgekd.progress import Progress
from edgekd.recipe import Recipe, load_recipe
from edgekd.types import Dataset, Format, Precision

DEMO = "demo-traffic"


def demo_recipe() -> Recipe:
    """Returns the recipe that runs where no data set is given."""
    return load_recipe(catalog_folder("models") / DEMO / "recipes" / "demo.yaml")


def teacher_path(recipe: Recipe) -> Path:
    """Returns the teacher's checkpoint.

    Raises:
        RecipeError: The data set is the user's and no teacher is named.
    """
    if recipe.teacher.checkpoint is not None:
        return recipe.teacher.checkpoint
    if recipe.data.path is None:
        return catalog_folder("models") / DEMO / "teacher.safetensors"
    raise RecipeError(
        f"no teacher for {recipe.data.path}: train one with `edgekd train --data "
        f"{recipe.data.path}` and name it with --teacher, or learn from annotation alone with "
        "--set 'distill.methods={}'"
    )


def require_feasible(recipe: Recipe, device: Device) -> None:
    """Raises `RecipeError` where the device executes no format in int8 that the recipe asks for."""
    for model_format in recipe.export.formats:
        device.require(model_format, Precision.INT8)
    if Format.ONNX in recipe.export.formats:
        device.require(Format.ONNX, Precision.FLOAT32)


def load_split(recipe: Recipe, split: str, folder: Path, progress: Progress) -> Dataset:
    """Returns one split, with a line about every kind of problem found.

    Args:
        recipe: Its data section.
        split: ``train``, ``val`` or ``test``.
        folder: Where the demo set is rendered and compressed data are unpacked.
        progress: Gets the problem report.

    Raises:
        DataError: The data set cannot be read, or the split has no usable image.
    """
    section = recipe.data
    root = section.path
    if root is None:
        root = write_demo_set(folder / "demo-set")
    dataset = load(
        root,
        split,
        format=section.format,
        ignore_classes=section.ignore_classes,
        strict=section.strict,
        cache=folder / "data",
    )
    if not dataset.samples:
        raise DataError(f"{root}: split {split!r} has no usable image")
    objects = sum(len(s.boxes) for s in dataset.samples)
    counted = f", {objects} objects" if objects else ""
    progress.note(
        f"data {split}: {len(dataset.samples)} images{counted}, "
        f"{len(dataset.classes)} classes ({dataset.format})"
    )
    if dataset.problems:
        progress.note(summarise(dataset.problems))
    return dataset


def fingerprint(dataset: Dataset) -> str:
    """Returns a hash of what a split holds: names, sizes in bytes and annotation of its images."""
    state = hashlib.sha256(repr((dataset.classes, dataset.split)).encode())
    for sample in dataset.samples:
        state.update(str((sample.path.name, sample.frame, sample.path.stat().st_size)).encode())
        for array in (sample.boxes, sample.labels, sample.ignore, sample.ignore_labels):
            state.update(array.tobytes())
    return state.hexdigest()
