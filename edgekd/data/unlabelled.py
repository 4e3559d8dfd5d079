"""Images that nobody annotated: learnt from through a teacher alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekd.core.errors import DataError
from edgekd.core.types import UNANNOTATED, Dataset, Problem, Sample, Task
from edgekd.data.image import image_size, is_image


def with_unlabelled(dataset: Dataset, folder: Path) -> Dataset:
    """Returns a training split with every image below ``folder`` added, not annotated.

    A detector's image is hidden whole from the loss on annotation; a classifier's has the label
    `UNANNOTATED`. The split's root becomes the common parent of both folders.

    Raises:
        DataError: The folder is missing or holds no image that can be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of unlabelled images")
    samples, problems = list(dataset.samples), list(dataset.problems)
    next_id = max((s.image_id for s in samples), default=0) + 1
    for path in sorted(p for p in folder.rglob("*") if is_image(p)):
        try:
            width, height = image_size(path)
        except DataError as error:
            problems.append(Problem(kind="unreadable-image", path=path, detail=str(error)))
            continue
        samples.append(_sample(dataset.task, next_id + len(samples), path, width, height))
    if len(samples) == len(dataset.samples):
        raise DataError(f"{folder}: no image that can be read")
    return replace(dataset, samples=tuple(samples), problems=tuple(problems))


def _sample(task: Task, image_id: int, path: Path, width: int, height: int) -> Sample:
    detects = task is Task.DETECTION
    whole = np.array([[0, 0, width, height]], np.float32)
    return Sample(
        image_id=image_id,
        path=path,
        width=width,
        height=height,
        boxes=np.empty((0, 4), np.float32),
        labels=np.empty(0, np.int64) if detects else np.array([UNANNOTATED], np.int64),
        areas=np.empty(0, np.float32),
        ignore=whole if detects else whole[:0],
        ignore_labels=np.array([UNANNOTATED] if detects else [], np.int64),
    )
