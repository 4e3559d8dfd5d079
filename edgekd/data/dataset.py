"""The way in: recognise a data set's format, load one split, and sum up what was wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import DataError, suggest
from edgekd.core.types import Dataset, Problem, Task
from edgekd.data.cleaning import Request
from edgekd.data.readers import coco, folder, idx, voc, yolo
from edgekd.data.splits import NOTES, SPLITS

FORMATS = ("yolo", "coco", "voc", "idx", "folder")
_SHOWN = 3


def recognise(root: Path) -> str:
    """Returns the format of the data set in ``root``: one of `FORMATS`.

    The first that fits, in that order, so that a description file goes before bare images.

    Raises:
        DataError: Nothing is there, or nothing of a known format.
    """
    if not root.exists():
        raise DataError(f"{root}: no such data set")
    if root.is_file():
        if coco.annotation_files(root):
            return "coco"
        raise DataError(f"{root}: not COCO instances JSON; legal: that file, or a folder")
    if yolo.description_file(root) is not None:
        return "yolo"
    if coco.annotation_files(root):
        return "coco"
    homes = voc.homes(root)
    if len(homes) == 1:
        return "voc"
    if idx.image_files(root):
        return "idx"
    if homes:
        listed = ", ".join(str(path) for path in homes)
        raise DataError(f"{root}: several Pascal VOC sets; name one of them: {listed}")
    if folder.class_folders(root):
        return "folder"
    raise DataError(
        f"{root}: no known data set; legal: a data.yaml with YOLO labels, COCO instances JSON in "
        "annotations/, Pascal VOC XML, IDX files, or a folder of images for each class"
    )


def load(
    root: Path,
    split: str,
    *,
    format: str | None = None,
    ignore_classes: tuple[str, ...] = (),
    strict: bool = False,
    task: Task | None = None,
    subset: Path | None = None,
    require_images: bool = True,
    cache: Path | None = None,
) -> Dataset:
    """Returns one split of a data set, cleaned, with a report of what was dropped or repaired.

    Args:
        root: Folder of the data set; for COCO also one JSON file.
        split: ``train``, ``val`` or ``test``. A set without ``val`` lends it a fifth of ``train``.
        format: One of `FORMATS`; by default recognised.
        ignore_classes: Categories whose boxes are ignore regions; ``DontCare`` and its like always
            are. Detection only.
        strict: Makes any problem an error.
        task: What the data set must be for.
        subset: Text file that lists the images to keep; by default the one ``<split>_subset*.txt``
            in ``root``. Detection only.
        require_images: False keeps samples whose image is not there, where the annotations state
            its size. Detection only.
        cache: Folder for unpacked IDX files.

    Raises:
        DataError: The data cannot be read, are for another task, or ``strict`` met a problem.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r}{suggest(split, SPLITS)}")
    if format is not None and format not in FORMATS:
        raise DataError(f"format {format!r}{suggest(format, FORMATS)}")
    if not root.exists():
        raise DataError(f"{root}: no such data set")
    request = Request(
        root=root,
        split=split,
        ignore_classes=ignore_classes,
        subset=subset,
        require_images=require_images,
    )
    dataset = _read(format or recognise(root), request, cache)
    if task is not None and dataset.task is not task:
        raise DataError(f"{root}: {dataset.format} data for {dataset.task}, wanted {task}")
    wrong = [problem for problem in dataset.problems if problem.kind not in NOTES]
    if strict and wrong:
        raise DataError(f"{root}: {len(wrong)} problems under --strict\n{summarise(wrong)}")
    return dataset


def with_classes(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """Returns the split with its labels as indices into ``classes``.

    The files of two splits may list their classes in another order, or not all of them.

    Raises:
        DataError: Something in the split is of a class that ``classes`` does not hold.
    """
    if dataset.classes == classes:
        return dataset
    places = {name: index for index, name in enumerate(classes)}
    table = np.array([places.get(name, -1) for name in dataset.classes], np.int64)

    def moved(labels: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
        new = np.where(labels < 0, labels, table[labels.clip(0)])
        if (new[labels >= 0] < 0).any():
            strangers = sorted({dataset.classes[k] for k in labels if k >= 0 and table[k] < 0})
            raise DataError(
                f"{path}: annotated as {', '.join(strangers)} in split {dataset.split!r}; legal: "
                f"{', '.join(classes)}"
            )
        return new

    samples = [
        replace(
            sample,
            labels=moved(sample.labels, sample.path),
            ignore_labels=moved(sample.ignore_labels, sample.path),
        )
        for sample in dataset.samples
    ]
    return replace(dataset, classes=classes, samples=tuple(samples))


def summarise(problems: Iterable[Problem]) -> str:
    """Returns one line a kind: how many, and the first few files with what was found there."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    return "\n".join(_line(kind, members) for kind, members in kinds.items())


def _line(kind: str, members: list[Problem]) -> str:
    shown = "; ".join(f"{member.path.name}: {member.detail}" for member in members[:_SHOWN])
    more = f"; and {len(members) - _SHOWN} more" if len(members) > _SHOWN else ""
    return f"{kind} {len(members)}: {shown}{more}"


def _read(form: str, request: Request, cache: Path | None) -> Dataset:
    match form:
        case "coco":
            return coco.read(request)
        case "yolo":
            return yolo.read(request)
        case "voc":
            return voc.read(request)
        case "folder":
            return folder.read(request.root, request.split)
        case _:
            return idx.read(request.root, request.split, cache=cache)
