"""Batches for training: a stream of views that is a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgekd.config.sections import Augmentation
from edgekd.core.types import Dataset, Image
from edgekd.core.workers import cores, main_module_hidden, start_method
from edgekd.data.augment import Tile, View, make_view
from edgekd.data.image import read_image


@dataclass(frozen=True, slots=True)
class Batch:
    """Images and annotation, in the network's input pixels.

    Attributes:
        images: ``(B, C, H, W)`` float32, (pixel - 128) / 128, channels-last in memory.
        boxes: ``(B, G, 4)`` xyxy, zero-padded; ``(B, 0, 4)`` for classification.
        labels: ``(B, G)`` int64, -1 for padding; ``(B, 1)`` for classification.
        ignore: ``(B, M, 4)`` regions left out of the loss, zero-padded.
        ignore_labels: ``(B, M)`` class hidden there; -1 hides every class, `UNANNOTATED` every
            class from the annotation's loss alone.
        teacher_views: ``(B, C, H', W')``, the same views at a teacher's larger input, else None.
        teacher_output: What a cache of teacher outputs holds about these views, else empty.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    ignore_labels: Tensor
    teacher_views: Tensor | None = None
    teacher_output: tuple[Tensor, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on ``device``."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(
            move(self.images),
            move(self.boxes),
            move(self.labels),
            move(self.ignore),
            move(self.ignore_labels),
            None if self.teacher_views is None else move(self.teacher_views),
            tuple(move(t) for t in self.teacher_output),
        )


class Lessons(Protocol):
    """Teacher outputs by view, such as a cache on disk."""

    def read(self, view: int, index: int) -> tuple[NDArray[np.generic], ...]:
        """Returns what was kept about image ``index`` in view number ``view``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewStream(TorchDataset[tuple[View, tuple[NDArray[np.generic], ...]]]):
    """Views addressed by (epoch, index), so that a run can be resumed and repeated exactly.

    Attributes:
        dataset: Where images and annotation come from.
        size: Height and width of a view.
        channels: 1 (grey) or 3 (RGB).
        augmentation: What a view may look like.
        seed: Of the order of the images, and of what their views look like.
        views: Number of different views of an image; epochs beyond repeat them. None for a new
            one every epoch.
        teacher_resolution: Height and width of the same view for a teacher.
        teacher_outputs: Teacher outputs that go with the views.
        view_seed: Of what the views look like, where that is not `seed`: runs with other seeds can
            share views.
    """

    dataset: Dataset
    size: tuple[int, int]
    channels: int
    augmentation: Augmentation
    seed: int
    views: int | None = None
    teacher_resolution: tuple[int, int] | None = None
    teacher_outputs: Lessons | None = None
    view_seed: int | None = None

    def __getitem__(self, key: tuple[int, int]) -> tuple[View, tuple[NDArray[np.generic], ...]]:
        """Returns the view of image ``index`` in ``epoch``, and the teacher_output about it."""
        epoch, index = key
        number = epoch % self.views if self.views else epoch
        seed = self.seed if self.view_seed is None else self.view_seed
        rng = np.random.default_rng((seed, number, index))

        def draw_tile(other: int | None) -> Tile:
            sample = self.dataset.samples[index if other is None else other]
            return sample, read_image(sample, self.channels)

        view = make_view(
            draw_tile,
            self.size,
            self.augmentation,
            rng,
            len(self.dataset.samples),
            self.teacher_resolution,
        )
        return view, self.teacher_outputs.read(number, index) if self.teacher_outputs else ()


@dataclass(frozen=True, slots=True)
class _KeyStream:
    """Batches of (epoch, index) from ``start`` to ``steps``: a shuffled pass, then the next."""

    images: int
    batch_size: int
    seed: int
    start: int
    steps: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: dict[int, NDArray[np.int64]] = {}
        for step in range(self.start, self.steps):
            keys = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, rank = divmod(position, self.images)
                if epoch not in order:
                    shuffle = np.random.default_rng((self.seed, epoch)).permutation(self.images)
                    order = {epoch - 1: order.get(epoch - 1, shuffle), epoch: shuffle}
                keys.append((epoch, int(order[epoch][rank])))
            yield keys

    def __len__(self) -> int:
        return self.steps - self.start


def batches(
    stream: ViewStream, *, batch_size: int, start: int, steps: int, workers: int | None = None
) -> Iterator[Batch]:
    """Yields the batches of steps ``start`` to ``steps``, always the same for the same seed.

    Args:
        stream: Where the views come from.
        batch_size: Images a step.
        start: First step, to resume from.
        steps: One past the last step.
        workers: Processes that prepare views; None chooses by the machine's cores.
    """
    count = default_workers() if workers is None else workers
    keys = _KeyStream(len(stream.dataset.samples), batch_size, stream.seed, start, steps)
    loader = DataLoader(
        stream,
        batch_sampler=keys,
        num_workers=count,
        multiprocessing_context=start_method() if count else None,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if count else None,
    )
    with main_module_hidden():
        started = iter(loader)
    yield from started


def default_workers() -> int:
    """Returns one worker for two cores, at most eight: on a CPU the network wants the rest."""
    return min(8, cores() // 2)


def collate(items: Sequence[tuple[View, tuple[NDArray[np.generic], ...]]]) -> Batch:
    """Returns one padded batch of views and their teacher_outputs."""
    views = [view for view, _ in items]
    teacher_views = [v.teacher_view for v in views if v.teacher_view is not None]
    teacher_outputs = zip(*(teacher_output for _, teacher_output in items), strict=True)
    return Batch(
        _images([v.image for v in views]),
        _pad([v.boxes for v in views], 0.0),
        _pad([v.labels for v in views], -1),
        _pad([v.ignore for v in views], 0.0),
        _pad([v.ignore_labels for v in views], -1),
        _images(teacher_views) if teacher_views else None,
        tuple(torch.from_numpy(np.stack(part)) for part in teacher_outputs),
    )


def _images(images: Sequence[Image]) -> Tensor:
    """Returns ``(B, C, H, W)``, normalised, channels-last in memory."""
    return normalise(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))


def normalise(images: Tensor) -> Tensor:
    """Returns (pixel - 128) / 128 in float32 for uint8 images."""
    return (images.float() - 128.0) / 128.0


def _pad(rows: Sequence[NDArray[np.generic]], fill: float) -> Tensor:
    longest = max(len(r) for r in rows)
    shape = (len(rows), longest, *rows[0].shape[1:])
    out = np.full(shape, fill, dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return torch.from_numpy(out)
