"""Batches for training: a stream of views that is a pure function of (seed, step)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgekd.data.augment import Tile, View, make_view
from edgekd.data.image import read_image
from edgekd.recipe import Augmentation
from edgekd.types import Dataset


@dataclass(frozen=True, slots=True)
class Batch:
    """Images and annotation, in the network's input pixels.

    Attributes:
        images: ``(B, C, H, W)`` float32, (pixel - 128) / 128, channels-last in memory.
        boxes: ``(B, G, 4)`` xyxy, zero-padded; ``(B, 0, 4)`` for classification.
        labels: ``(B, G)`` int64, -1 for padding; ``(B, 1)`` for classification.
        ignore: ``(B, M, 4)`` regions left out of the loss, zero-padded.
        ignore_labels: ``(B, M)`` class hidden there, -1 for every class.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    ignore_labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on ``device``."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


class ViewStream(TorchDataset[View]):
    """Views addressed by (epoch, index), so that a run can be resumed and repeated exactly."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        size: tuple[int, int],
        channels: int,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.dataset = dataset
        self.size = size
        self.channels = channels
        self.augmentation = augmentation
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> View:
        """Returns the view of image ``index`` in ``epoch``."""
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))

        def draw_tile(other: int | None) -> Tile:
            sample = self.dataset.samples[index if other is None else other]
            return sample, read_image(sample, self.channels)

        return make_view(draw_tile, self.size, self.augmentation, rng, len(self.dataset.samples))


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
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if count else None,
    )
    yield from loader


def default_workers() -> int:
    """Returns one worker for two cores, at most eight: on a CPU the network wants the rest."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(8, cores // 2)


def collate(views: Sequence[View]) -> Batch:
    """Returns one padded batch."""
    images = torch.from_numpy(np.stack([v.image for v in views])).permute(0, 3, 1, 2)
    return Batch(
        normalise(images),
        _pad([v.boxes for v in views], 0.0),
        _pad([v.labels for v in views], -1),
        _pad([v.ignore for v in views], 0.0),
        _pad([v.ignore_labels for v in views], -1),
    )


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
