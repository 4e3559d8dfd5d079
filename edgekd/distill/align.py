"""Brings what a teacher says to the student's cells, whatever the teacher's levels and input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from edgekd.distill.batch_context import LevelPair
from edgekd.standalone.decoder import MAX_LOG_SIZE, SIZE_PRIOR
from edgekd.training.detection import DensePredictions, dense_predictions
from edgekd.training.teacher_output import TeacherForm


def pair_levels(
    strides: Sequence[int], channels: Sequence[int], form: TeacherForm
) -> tuple[LevelPair, ...]:
    """Returns the student's levels and the teacher's levels that see objects of the same size.

    As many pairs as the shorter pyramid has levels, in order, chosen so that their strides in the
    student's pixels are as near as possible.

    Args:
        strides: Of the student's levels, rising.
        channels: Of the student's features.
        form: Of the teacher.
    """
    theirs = [stride / form.magnification for stride in form.strides]
    count = min(len(strides), len(theirs))
    choices = itertools.product(
        itertools.combinations(range(len(strides)), count),
        itertools.combinations(range(len(theirs)), count),
    )

    def distance(choice: tuple[tuple[int, ...], tuple[int, ...]]) -> float:
        return sum(abs(math.log2(strides[s] / theirs[t])) for s, t in zip(*choice, strict=True))

    student, teacher = min(choices, key=distance)
    features = form.channels or (0,) * len(theirs)
    return tuple(
        LevelPair(s, t, channels[s], features[t]) for s, t in zip(student, teacher, strict=True)
    )


def aligned(
    outputs: Sequence[Tensor],
    form: TeacherForm,
    pairs: Sequence[LevelPair],
    cells: DensePredictions,
    sizes: Sequence[tuple[int, int]],
) -> DensePredictions:
    """Returns the teacher's detections on the student's cells, boxes in the student's pixels.

    Where a student's cell covers several of the teacher's, the one that is most certain of
    something speaks for it; where it covers a part of one, that one does. Cells that are the same
    are taken as they are.

    Args:
        outputs: The teacher's raw outputs.
        form: Of the teacher.
        pairs: The levels.
        cells: The student's detections on the paired levels; only their cells matter.
        sizes: ``(H, W)`` of the student's paired levels.
    """
    logits, boxes, start = [], [], 0
    for pair, size in zip(pairs, sizes, strict=True):
        level = outputs[2 * pair.teacher : 2 * pair.teacher + 2]
        theirs = dense_predictions(level, [form.strides[pair.teacher]])
        grid = (level[0].shape[2], level[0].shape[3])
        stride = float(cells.strides[start])
        ratio = stride * form.magnification / form.strides[pair.teacher]
        score, box = theirs.logits, theirs.boxes / form.magnification
        if not (grid == size and ratio == 1.0):
            score, box = _most_certain(score, box, _windows(size, grid, ratio, score.device))
        logits.append(score)
        boxes.append(box)
        start += size[0] * size[1]
    joined = torch.cat(boxes, dim=1)
    return DensePredictions(
        torch.cat(logits, dim=1),
        raw_boxes(joined, cells.centres, cells.strides),
        joined,
        cells.centres,
        cells.strides,
    )


def seen_part(
    feature: Tensor, size: tuple[int, int], stride: int, form: TeacherForm, level: int
) -> Tensor:
    """Returns the part of a teacher's feature that the student sees too.

    A larger input of another aspect ratio is padded at its right and bottom.

    Args:
        feature: ``(B, C, H', W')``.
        size: ``(H, W)`` of the student's feature.
        stride: Of the student's feature.
        form: Of the teacher.
        level: Of the teacher.
    """
    ratio = stride * form.magnification / form.strides[level]
    rows, columns = (math.ceil(n * ratio - 1e-6) for n in size)
    return feature[..., :rows, :columns]


def averaged(opinions: Sequence[DensePredictions]) -> DensePredictions:
    """Returns the mean of several teachers' probabilities, and of their boxes by certainty."""
    if len(opinions) == 1:
        return opinions[0]
    scores = torch.stack([o.logits.sigmoid() for o in opinions])
    certainty = scores.amax(-1, keepdim=True)
    share = certainty / certainty.sum(0).clamp(min=1e-9)
    boxes = (torch.stack([o.boxes for o in opinions]) * share).sum(0)
    first = opinions[0]
    return DensePredictions(
        torch.logit(scores.mean(0), eps=1e-6),
        raw_boxes(boxes, first.centres, first.strides),
        boxes,
        first.centres,
        first.strides,
    )


def raw_boxes(boxes: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Returns (dx, dy, log w, log h) of xyxy boxes at given cells: decoding, backwards."""
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = (boxes[..., 2:] - boxes[..., :2]) / (SIZE_PRIOR * strides[:, None])
    offset = (middle - centres) / strides[:, None]
    return torch.cat((offset, sides.clamp(min=math.exp(-MAX_LOG_SIZE)).log()), dim=-1)


def _most_certain(logits: Tensor, boxes: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns, for each row of windows ``(P, K)``, the candidate with the highest class logit."""
    batch, classes = logits.shape[0], logits.shape[-1]
    best = logits.amax(-1)[:, windows].argmax(-1, keepdim=True)  # (B, P, 1)
    chosen = windows.expand(batch, -1, -1).gather(2, best).squeeze(2)  # (B, P)

    def pick(values: Tensor, width: int) -> Tensor:
        return values.gather(1, chosen.unsqueeze(-1).expand(-1, -1, width))

    return pick(logits, classes), pick(boxes, 4)


@lru_cache(maxsize=64)
def _windows(
    size: tuple[int, int], grid: tuple[int, int], ratio: float, device: torch.device
) -> Tensor:
    """Returns ``(P, K)`` indices of the teacher's cells that each of the student's covers."""
    rows, columns = (_covered(n, m, ratio) for n, m in zip(size, grid, strict=True))
    index = rows[:, None, :, None] * grid[1] + columns[None, :, None, :]
    return index.reshape(size[0] * size[1], -1).to(device)


def _covered(count: int, cells: int, ratio: float) -> Tensor:
    """Returns ``(count, K)`` cells under each student's cell along one axis, the last repeated."""
    first = torch.floor(torch.arange(count) * ratio + 1e-6)
    last = torch.ceil((torch.arange(count) + 1) * ratio - 1e-6) - 1
    width = int((last - first).max()) + 1
    candidates = torch.minimum(first[:, None] + torch.arange(width), last[:, None])
    return candidates.clamp(0, cells - 1).long()
