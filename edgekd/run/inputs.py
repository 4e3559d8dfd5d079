"""Where a run gets its data and its teacher, the built-in demo included."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edgekd.config.catalog import catalog_folder
from edgekd.config.device import Device
from edgekd.config.recipe import Recipe, load_recipe, override
from edgekd.config.yaml import read_yaml
from edgekd.core.errors import DataError, ModelError, RecipeError
from edgekd.core.progress import Progress
from edgekd.core.types import Dataset, Format, Precision, Task
from edgekd.data.dataset import load, summarise
from edgekd.data.demo.render import write_demo_set
from edgekd.data.image import read_image
from edgekd.data.unlabelled import with_unlabelled
from edgekd.run.directory import CONTENT_NAME

DEMO = "demo-traffic"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShippedModel:
    """A teacher that comes with EdgeKD.

    Attributes:
        id: Its folder's name.
        folder: Holds its card, weights and recipes.
        labels: Class names, indexed by label.
        weights: Checkpoint.
        recipe: What to start from for data of these classes.
        credit: Whom to thank for the data that it was trained on.
        licence: Of the weights.
    """

    id: str
    folder: Path
    labels: tuple[str, ...]
    weights: Path
    recipe: Path
    credit: str
    licence: str


def shipped_models() -> tuple[ShippedModel, ...]:
    """Returns the catalogue of ``models/``."""
    found = []
    for path in sorted(catalog_folder("models").glob("*/model.yaml")):
        card = read_yaml(path, ModelError)
        found.append(
            ShippedModel(
                id=card["id"],
                folder=path.parent,
                labels=tuple(card["labels"]),
                weights=path.parent / card["weights"],
                recipe=path.parent / "recipes" / card["recipe"],
                credit=card["credit"],
                licence=card["licence"],
            )
        )
    return tuple(found)


def shipped_for(classes: tuple[str, ...]) -> ShippedModel | None:
    """Returns the shipped teacher of exactly these classes, None where there is none."""
    return next((model for model in shipped_models() if model.labels == classes), None)


def shipped_start(architecture: str) -> Path | None:
    """Returns the weights that EdgeKD ships for a student to start from, None where it has none."""
    for path in sorted(catalog_folder("models").glob("*/start.yaml")):
        card = read_yaml(path, ModelError)
        if card["architecture"] == architecture:
            return path.parent / str(card["weights"])
    return None


def demo_recipe() -> Recipe:
    """Returns the recipe that runs where no data set is given."""
    return load_recipe(catalog_folder("models") / DEMO / "recipes" / "demo.yaml")


def fitted_recipe(data: Path, *, own_teacher: bool = False) -> tuple[Recipe, Dataset]:
    """Returns a recipe that fits a data set, and the training split that it was fitted to.

    Where EdgeKD ships a teacher for these very classes its recipe is the start; else, and for a
    user who brings a teacher, input size and channels follow the images, and the family follows
    the task. IDX files hold digits and letters as a rule, which are not what they were in a mirror.

    Raises:
        DataError: The data set is not recognised, or its training split is empty.
    """
    train = load(data, "train")
    if not train.samples:
        raise DataError(f"{data}: split 'train' has no usable image")
    shipped = None if own_teacher else shipped_for(train.classes)
    if shipped and train.task is Task.DETECTION:
        return override(load_recipe(shipped.recipe), {"data.path": str(data)}), train
    first = read_image(train.samples[0], 3)
    grey = bool((first == first[..., :1]).all())
    height, width = _input_size(first.shape[0], first.shape[1])
    changes = {
        "data.path": str(data),
        "input.height": height,
        "input.width": width,
        "input.channels": 1 if grey else 3,
        "student.architecture": f"{train.task.family}-n",
    }
    if train.format == "idx":
        changes["augmentation.horizontal_flip"] = 0.0
    return override(Recipe(), changes), train


def _input_size(rows: int, columns: int) -> tuple[int, int]:
    """Returns a multiple of 32 near the image's own shape, its longer side at most 416."""
    scale = min(1.0, 416 / max(rows, columns))
    return tuple(max(32, round(n * scale / 32) * 32) for n in (rows, columns))  # type: ignore[return-value]


def teacher_sources(recipe: Recipe, dataset: Dataset) -> tuple[str, ...]:
    """Returns where the teachers come from, the first of them first.

    Raises:
        RecipeError: None is named and EdgeKD ships none for these classes.
    """
    if recipe.teacher.model is not None:
        return (recipe.teacher.model, *recipe.teacher.others)
    shipped = shipped_for(dataset.classes) if dataset.task is Task.DETECTION else None
    if shipped:
        return (str(shipped.weights), *recipe.teacher.others)
    raise RecipeError(
        f"no teacher for {recipe.data.path}: train one with `edgekd train --data "
        f"{recipe.data.path}` and name it with --teacher, or learn from annotation alone with "
        "--set 'distill.methods={}'"
    )


def require_feasible(recipe: Recipe, device: Device) -> None:
    """Raises `RecipeError` where the device does not execute what the recipe asks for.

    Without int8 a format that the device refuses is left out, as long as one remains.
    """
    formats = recipe.export.formats
    if recipe.quantize.mode == "none":
        if not any(device.allows(f, Precision.FLOAT32) for f in formats):
            device.require(formats[0], Precision.FLOAT32)
        return
    try:
        for model_format in formats:
            device.require(model_format, Precision.INT8)
    except RecipeError as refused:
        if device.allows(device.primary, Precision.INT8):
            raise
        raise RecipeError(f"{refused}; --fp16 leaves int8 out") from refused
    if Format.ONNX in formats:
        device.require(Format.ONNX, Precision.FLOAT32)


def writable(recipe: Recipe, note: Callable[[str], None]) -> Recipe:
    """Returns the recipe without a format that cannot be written on this computer.

    Args:
        recipe: As the user gave it.
        note: Gets a line that says what is left out and why.

    Raises:
        RecipeError: No format is left.
    """
    if Format.TFLITE not in recipe.export.formats or find_spec("litert_torch"):
        return recipe
    why = (
        "the converter, litert-torch, is not installed; it has wheels for Linux on x86-64 and "
        f"macOS on arm64, and this is {platform.system()} on {platform.machine()}"
    )
    left = [f.value for f in recipe.export.formats if f is not Format.TFLITE]
    if not left:
        raise RecipeError(f"export.formats [tflite]: {why}; legal here: [onnx]")
    note(f"no TFLite files: {why}")
    return override(recipe, {"export.formats": left})


def require_apart(out: Path, recipe: Recipe) -> None:
    """Raises `RecipeError` where a run directory would lie among what the run only reads.

    It may neither be, hold nor lie in a folder of images, nor hold a file that the recipe names,
    save a network that was given as an object and is kept in it.
    """
    target = out.resolve()
    for key, folder in (
        ("data.path", recipe.data.path),
        ("data.unlabelled", recipe.data.unlabelled),
    ):
        if folder is None:
            continue
        read = folder.resolve()
        if target == read or target in read.parents or read in target.parents:
            raise RecipeError(
                f"--out {out}: overlaps {key} {folder}; legal: a folder neither in it nor around it"
            )
    for key, path in _files_named(recipe):
        place = path.resolve()
        kept = place.parent == target and CONTENT_NAME.fullmatch(place.name)
        if target in place.parents and not kept:
            raise RecipeError(
                f"--out {out}: holds {key} {path}; legal: a folder without what the run reads"
            )


def _files_named(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """Yields every file that a recipe names, with its key."""
    teacher, student = recipe.teacher, recipe.student
    for source in (teacher.model, *teacher.others):
        if source:
            yield "teacher", Path(source.rpartition(":")[0] if ".py:" in source else source)
    if ".py:" in student.architecture:
        yield "student.architecture", Path(student.architecture.rpartition(":")[0])
    for key, path in (
        ("teacher.weights", teacher.weights),
        ("student.checkpoint", student.checkpoint),
    ):
        if path:
            yield key, path


def load_split(recipe: Recipe, split: str, folder: Path, progress: Progress) -> Dataset:
    """Returns one split, with a line about every kind of problem found.

    The training split takes in the recipe's unlabelled images.

    Args:
        recipe: Its data section.
        split: ``train``, ``val`` or ``test``.
        folder: Where the demo set is rendered and compressed data are unpacked.
        progress: Gets the problem report.

    Raises:
        DataError: The data set cannot be read, the split has no usable image, or there is but one
            class to tell apart.
    """
    section = recipe.data
    root = section.path
    if root is None:
        root = write_demo_set(folder / "demo-set", progress=progress)
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
    if dataset.task is Task.CLASSIFICATION and len(dataset.classes) < 2:
        raise DataError(
            f"{root}: images in the folder {dataset.classes[0]!r} alone; legal: a folder for each "
            "of two or more classes, or a detection set with its annotations"
        )
    annotated = len(dataset.samples)
    if section.unlabelled and split == section.train:
        dataset = with_unlabelled(dataset, section.unlabelled)
    objects = sum(len(s.boxes) for s in dataset.samples)
    counted = f", {objects} objects" if objects else ""
    if len(dataset.samples) > annotated:
        counted += f", {len(dataset.samples) - annotated} of them not annotated"
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
