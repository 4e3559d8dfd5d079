"""Image folders for classification: the name of an image's folder is its class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgekd.core.errors import DataError
from edgekd.core.types import Dataset, Problem, Sample, Task
from edgekd.data.cleaning import ReadRequest
from edgekd.data.image import image_size, is_image
from edgekd.data.reader import register_reader
from edgekd.data.splits import is_made, made_split, source_of, split_folders


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Returns split → class folders; a root that holds classes itself is ``train``."""
    splits = {split: _classes(folder) for split, folder in split_folders(root).items()}
    named = {split: classes for split, classes in splits.items() if classes}
    if named:
        return named
    classes = _classes(root)
    return {"train": classes} if classes else {}


@register_reader(
    "folder",
    finds=lambda root: bool(class_folders(root)),
    describes="a folder of images for each class",
    order=50,
)
def read(request: ReadRequest) -> Dataset:
    """Returns one split of an image folder.

    Classes are the folders of ``train`` (of the split itself where there is none) in alphabetical
    order. Without a ``val`` folder a fifth of each class is ``val``.

    Raises:
        DataError: The split is absent or holds no usable image.
    """
    root, split = request.root, request.split
    parts = class_folders(root)
    source = source_of(split, parts, root)
    names = [folder.name for folder in parts.get("train", parts[source])]
    labels = {name: label for label, name in enumerate(names)}
    problems: list[Problem] = []
    found = list(_images(parts[source], labels, problems))
    if is_made(split, parts):
        keys = [path.relative_to(root).as_posix() for path, _ in found]
        groups = [names[label] for _, label in found]
        chosen, note = made_split(keys, split, root, groups)
        found = [item for item, key in zip(found, keys, strict=True) if key in chosen]
        problems.append(note)
    samples = _samples(found, problems)
    if not samples:
        raise DataError(f"{root}: split {split!r} has no usable image")
    return Dataset(
        name=root.name,
        task=Task.CLASSIFICATION,
        split=split,
        format="folder",
        root=root,
        classes=tuple(names),
        samples=samples,
        problems=tuple(problems),
    )


def _classes(base: Path) -> list[Path]:
    """Returns the folders in ``base`` that hold an image at any depth, by name."""
    folders = sorted(path for path in base.glob("*") if path.is_dir() and path.name[0] != ".")
    return [folder for folder in folders if any(is_image(path) for path in folder.rglob("*"))]


def _images(
    folders: Iterable[Path], labels: dict[str, int], problems: list[Problem]
) -> list[tuple[Path, int]]:
    found: list[tuple[Path, int]] = []
    for folder in folders:
        images = sorted(path for path in folder.rglob("*") if is_image(path))
        if folder.name in labels:
            found += [(path, labels[folder.name]) for path in images]
        else:
            detail = f"{len(images)} images of a class that train does not have"
            problems.append(Problem(kind="unknown-class", path=folder, detail=detail))
    return found


def _samples(found: Iterable[tuple[Path, int]], problems: list[Problem]) -> tuple[Sample, ...]:
    samples: list[Sample] = []
    for path, label in found:
        try:
            width, height = image_size(path)
        except DataError as error:
            problems.append(Problem(kind="unreadable-image", path=path, detail=str(error)))
            continue
        samples.append(
            Sample(
                image_id=len(samples) + 1,
                path=path,
                width=width,
                height=height,
                labels=np.array([label], np.int64),
            )
        )
    return tuple(samples)
