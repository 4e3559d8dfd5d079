"""The way in: load one split of a data set, and sum up what was wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import DataError, suggest
from edgekd.core.types import UNANNOTATED, Dataset, Problem, Task
from edgekd.data.cleaning import ReadRequest
from edgekd.data.reader import readers, recognise
from edgekd.data.splits import NOTES, SPLITS

_SHOWN = 3


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
        format: Name of its reader; by default recognised.
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
    if format is not None and format not in readers():
        raise DataError(f"format {format!r}{suggest(format, readers())}")
    if not root.exists():
        raise DataError(f"{root}: no such data set")
    request = ReadRequest(
        root=root,
        split=split,
        ignore_classes=ignore_classes,
        subset=subset,
        require_images=require_images,
        cache=cache,
    )
    dataset = readers()[format or recognise(root)].read(request)
    _require_consistent(dataset)
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


def _require_consistent(dataset: Dataset) -> None:
    """Raises `DataError` where a reader returned boxes without labels, or unknown ones."""
    for sample in dataset.samples:
        objects = len(sample.labels)
        alike = dataset.task is Task.CLASSIFICATION or objects == len(sample.boxes)
        lowest = UNANNOTATED if dataset.task is Task.CLASSIFICATION else 0
        inside = objects == 0 or lowest <= sample.labels.min() <= sample.labels.max() < len(
            dataset.classes
        )
        if not (alike and inside and len(sample.areas) == len(sample.boxes)):
            raise DataError(
                f"{sample.path}: the reader {dataset.format!r} gave {len(sample.boxes)} boxes, "
                f"{len(sample.areas)} areas and the labels {sample.labels.tolist()[:10]}; legal: "
                f"as many of each, labels from 0 to {len(dataset.classes) - 1}"
            )


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
