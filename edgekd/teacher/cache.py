"""Lessons for a batch, from teachers that are asked now or from what they said before.

A cache on disk holds, for K fixed views of every image, what each teacher said about them: raw
outputs and features as float16, detections as float32. It is addressed by everything that it
depends on, so that runs share it, and a run that trains from it needs no teacher in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.core.progress import Progress
from edgekd.data.augment import magnification
from edgekd.data.loader import Batch, ViewStream, collate
from edgekd.teacher.frozen import Teacher
from edgekd.teacher.record_store import Arrays, RecordField, RecordStore
from edgekd.training.allocator import keep_freed_memory
from edgekd.training.precision import autocast, resolved, warn_of_emulation
from edgekd.training.teacher_output import DetectionBatch, TeacherOutput

KINDS = ("outputs", "features", "detections")
"""What can be kept, in the order in which a batch carries it."""


def live_outputs(
    teachers: Sequence[Teacher], batch: Batch, kinds: Collection[str]
) -> tuple[TeacherOutput, ...]:
    """Returns one record of outputs a teacher; they see their own views where a batch has them."""
    images = batch.images if batch.teacher_views is None else batch.teacher_views
    factor = magnification(_size(batch.images), _size(images))
    teacher_outputs = [teacher.teacher_output(images, kinds) for teacher in teachers]
    return tuple(replace(x, detections=_shrunk(x.detections, factor)) for x in teacher_outputs)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _shrunk(detections: DetectionBatch | None, factor: float) -> DetectionBatch | None:
    if detections is None:
        return None
    return replace(detections, boxes=detections.boxes / factor)


@dataclass(frozen=True, slots=True)
class TeacherCache:
    """What teachers said about fixed views: one store a teacher and kind.

    Attributes:
        images: In the training split.
        stores: In the order in which `read` returns their arrays.
        layout: Teacher index, kind and number of arrays of each store.
    """

    images: int
    stores: tuple[RecordStore, ...]
    layout: tuple[tuple[int, str, int], ...]

    def read(self, view: int, index: int) -> tuple[NDArray[np.generic], ...]:
        """Returns everything that is kept about image ``index`` in view number ``view``."""
        number = view * self.images + index
        return tuple(array for store in self.stores for array in store.read(number))

    def teacher_outputs(self, batch: Batch) -> tuple[TeacherOutput, ...]:
        """Returns one record of outputs a teacher from what came with the batch."""
        found: dict[int, dict[str, Any]] = {}
        rest = list(batch.teacher_output)
        for teacher, kind, count in self.layout:
            arrays = [tensor.float() for tensor in rest[:count]]
            del rest[:count]
            found.setdefault(teacher, {})[kind] = (
                _detections(arrays[0]) if kind == "detections" else tuple(arrays)
            )
        return tuple(TeacherOutput(**found[index]) for index in sorted(found))

    @property
    def size_bytes(self) -> int:
        """Bytes of all records kept so far."""
        return sum(store.size_bytes for store in self.stores)


def open_cache(
    teachers: Sequence[Teacher],
    stream: ViewStream,
    kinds: Collection[str],
    folders: Sequence[Path],
    *,
    views: int,
    progress: Progress,
    device: torch.device,
    precision: str,
    batch_size: int = 16,
) -> TeacherCache:
    """Returns the cache of the first ``views`` views of every image, filled where it has gaps.

    Where there is no gap no teacher is asked, so that none has to be in memory.

    Args:
        teachers: Asked about the views that are not kept yet.
        stream: Training views, also at the teachers' resolution where they have one.
        kinds: What the methods need.
        folders: One a teacher; the kinds are below it.
        views: Views an image.
        progress: Shows views and bytes.
        device: Where the teachers are.
        precision: In which the teachers compute: ``float32``, ``bfloat16`` or ``auto``.
        batch_size: Views that the teachers see at once.

    Raises:
        RunError: A folder holds something else.
        OSError: The disk is full.
    """
    kept = [kind for kind in KINDS if kind in kinds]
    computed = resolved(device, precision)
    asking = replace(stream, views=None, teacher_outputs=None)

    def ask(numbers: Sequence[int]) -> tuple[TeacherOutput, ...]:
        count = len(stream.dataset.samples)
        batch = collate([asking[divmod(number, count)] for number in numbers]).to(device)
        with autocast(device, computed):
            return live_outputs(teachers, batch, kept)

    existing = [RecordStore.existing(folder / kind) for folder in folders for kind in kept]
    stores = [store for store in existing if store is not None]
    if len(stores) < len(existing):
        stores = _new_shelves(folders, kept, ask([0]))
    owners = itertools.product(range(len(folders)), kept)
    cache = TeacherCache(
        len(stream.dataset.samples),
        tuple(stores),
        tuple((*owner, len(s.slots)) for owner, s in zip(owners, stores, strict=True)),
    )
    wanted = range(views * cache.images)
    gaps = {number for store in stores for number in store.missing(wanted)}
    if not gaps:
        return cache
    keep_freed_memory()
    warn_of_emulation(device, precision, progress)
    with progress.meter("teacher cache", len(wanted), len(wanted) - len(gaps)) as meter:
        done = len(wanted) - len(gaps)
        for numbers in _blocks(views, cache.images, batch_size):
            missing = gaps.intersection(numbers)
            if missing:
                _keep(cache, numbers, ask(numbers))
                done += len(missing)
                meter.update(done, {"MiB": cache.size_bytes / 2**20})
    return cache


def _blocks(views: int, images: int, size: int) -> Iterator[range]:
    """Yields the records that a teacher is asked for at once, always the same ones together.

    What a network says about an image depends, in the last bit, on the images beside it: a cache
    that was interrupted and filled up must hold what one that was filled in one go holds.
    """
    for view in range(views):
        for start in range(0, images, size):
            first = view * images + start
            yield range(first, first + min(size, images - start))


def _new_shelves(
    folders: Sequence[Path], kinds: Sequence[str], teacher_outputs: Sequence[TeacherOutput]
) -> list[RecordStore]:
    """Returns a store a folder and kind, its records shaped as the teachers' outputs."""
    return [
        RecordStore(
            folder / kind,
            [RecordField(str(a.dtype), a.shape[1:]) for a in _arrays(teacher_output, kind)],
        )
        for folder, teacher_output in zip(folders, teacher_outputs, strict=True)
        for kind in kinds
    ]


def _keep(
    cache: TeacherCache, numbers: Sequence[int], teacher_outputs: Sequence[TeacherOutput]
) -> None:
    for store, (teacher, kind, _) in zip(cache.stores, cache.layout, strict=True):
        arrays = _arrays(teacher_outputs[teacher], kind)
        for row, number in enumerate(numbers):
            store.keep(number, tuple(array[row] for array in arrays))


def _arrays(teacher_output: TeacherOutput, kind: str) -> Arrays:
    """Returns the arrays that are kept of a teacher's outputs, batch dimension first."""
    if kind == "detections":
        if teacher_output.detections is None:
            raise ValueError("the teacher was asked for detections and gave none")
        o = teacher_output.detections
        rows = torch.cat((o.boxes, o.scores[..., None], o.labels[..., None]), dim=-1)
        return (rows.float().cpu().numpy(),)
    tensors: tuple[Tensor, ...] = (
        teacher_output.outputs if kind == "outputs" else teacher_output.features
    )
    return tuple(tensor.half().cpu().numpy() for tensor in tensors)


def _detections(rows: Tensor) -> DetectionBatch:
    return DetectionBatch(rows[..., :4], rows[..., 5].long(), rows[..., 4])
