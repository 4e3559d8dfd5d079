"""Which cells answer for which annotated object: task-aligned assignment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Assignment:
    """Targets for every cell of a batch.

    Attributes:
        scores: ``(B, P, C)`` soft class targets in [0, 1]; zero for background.
        boxes: ``(B, P, 4)`` xyxy of the assigned object, input pixels; zero for background.
        weights: ``(B, P)`` of each positive in the box loss; zero for background.
        owner: ``(B, P)`` index of the assigned object in its image, -1 for background.
        valid: ``(B, P, C)`` False where an ignore region hides a background cell.
    """

    scores: Tensor
    boxes: Tensor
    weights: Tensor
    owner: Tensor
    valid: Tensor


class TaskAlignedAssigner:
    """Assigns the cells whose score and box agree best with an object (TOOD, arXiv 2108.07755).

    Candidates lie inside the object or, so that an object smaller than a cell is not lost, within
    one cell of its centre. The alignment is score^alpha IoU^beta; the soft target is the alignment
    scaled so that an object's best cell gets its best IoU.

    Args:
        top_k: Cells an object.
        alpha: Exponent of the class score.
        beta: Exponent of the IoU.
    """

    def __init__(self, top_k: int = 10, alpha: float = 0.5, beta: float = 4.0) -> None:
        self.top_k, self.alpha, self.beta = top_k, alpha, beta

    @torch.no_grad()
    def __call__(
        self,
        *,
        probabilities: Tensor,
        boxes: Tensor,
        centres: Tensor,
        strides: Tensor,
        objects: Tensor,
        labels: Tensor,
        ignore: Tensor,
        ignore_labels: Tensor,
    ) -> Assignment:
        """Returns the targets.

        Args:
            probabilities: ``(B, P, C)`` in [0, 1].
            boxes: ``(B, P, 4)`` xyxy, decoded, input pixels.
            centres: ``(P, 2)`` cell centres, input pixels.
            strides: ``(P,)`` pixels per cell.
            objects: ``(B, G, 4)`` xyxy, input pixels, zero-padded.
            labels: ``(B, G)``, -1 for padding.
            ignore: ``(B, M, 4)`` ignore regions, zero-padded.
            ignore_labels: ``(B, M)`` class hidden there, -1 for every class.
        """
        batch, cells, classes = probabilities.shape
        image, rank = torch.nonzero(labels >= 0, as_tuple=True)  # (N,) real objects of the batch
        wanted, label = objects[image, rank], labels[image, rank]
        inside, near = _reach(centres, strides, wanted)
        item, cell = torch.nonzero(inside | near, as_tuple=True)  # (K,) candidates
        overlap = paired_iou(wanted[item], boxes[image[item], cell])
        score = probabilities[image[item], cell, label[item]]
        alignment = score.pow(self.alpha) * overlap.pow(self.beta)

        # The tiny term orders candidates that do not overlap yet, so that every object is learnt
        # from the first step on.
        chosen = _best_of_each(item, alignment + 1e-9 * score, self.top_k, len(wanted))
        item, cell, overlap, alignment = (v[chosen] for v in (item, cell, overlap, alignment))
        place = image[item] * cells + cell
        owns = _first_best(place, overlap, item, batch * cells)
        item, place, overlap, alignment = (v[owns] for v in (item, place, overlap, alignment))
        peak = _highest(item, alignment, len(wanted))
        top_overlap = _highest(item, overlap, len(wanted))
        reached = alignment / (peak[item] + 1e-12) * top_overlap[item]

        quality = probabilities.new_zeros(batch * cells)
        quality[place] = reached.to(quality.dtype)
        owner = torch.full((batch * cells,), -1, device=place.device)
        owner[place] = rank[item]
        scores = probabilities.new_zeros(batch * cells, classes)
        scores[place, label[item]] = reached.to(quality.dtype)
        targets = objects.new_zeros(batch * cells, 4)
        targets[place] = wanted[item]
        hidden = hidden_cells(centres, ignore, ignore_labels, classes)
        owner = owner.view(batch, cells)
        return Assignment(
            scores=scores.view(batch, cells, classes),
            boxes=targets.view(batch, cells, 4),
            weights=quality.view(batch, cells),
            owner=owner,
            valid=~hidden | (owner >= 0).unsqueeze(-1),
        )


def _best_of_each(item: Tensor, value: Tensor, count: int, items: int) -> Tensor:
    """Returns the indices of the ``count`` highest values of each item, or of all that it has."""
    falling = torch.argsort(value, descending=True, stable=True)
    grouped = falling[torch.argsort(item[falling], stable=True)]
    start = torch.searchsorted(item[grouped], torch.arange(items, device=item.device))
    place = torch.arange(len(item), device=item.device) - start[item[grouped]]
    return grouped[place < count]


def _first_best(place: Tensor, overlap: Tensor, item: Tensor, places: int) -> Tensor:
    """Returns which claims win their place: the highest overlap, of equal ones the first object."""
    winner = overlap == _highest(place, overlap, places)[place]
    first = torch.full((places,), torch.iinfo(item.dtype).max, device=item.device)
    first.scatter_reduce_(0, place[winner], item[winner], "amin")
    return winner & (item == first[place])


def _highest(index: Tensor, value: Tensor, count: int) -> Tensor:
    """Returns ``(count,)``: the highest value of each index, 0 where it has none."""
    return value.new_zeros(count).scatter_reduce_(0, index, value, "amax")


def _reach(centres: Tensor, strides: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """Returns which cells lie inside ``(..., P)``, and which within one cell of the middle."""
    x, y = centres[:, 0], centres[:, 1]
    left, top, right, bottom = objects.unsqueeze(-1).unbind(-2)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    near = ((left + right) / 2 - x).abs() < strides
    near &= ((top + bottom) / 2 - y).abs() < strides
    return inside, near


def hidden_cells(centres: Tensor, ignore: Tensor, ignore_labels: Tensor, classes: int) -> Tensor:
    """Returns ``(B, P, C)``: True where an ignore region covers the cell for that class.

    Any negative label hides every class.
    """
    batch, regions = ignore_labels.shape
    if regions == 0:
        return torch.zeros(batch, len(centres), classes, dtype=torch.bool, device=centres.device)
    inside, _ = _reach(centres, centres.new_zeros(len(centres)), ignore)  # (B, M, P)
    every = torch.arange(classes, device=centres.device)
    covers = (ignore_labels.unsqueeze(-1) == every) | (ignore_labels.unsqueeze(-1) < 0)
    return (inside.unsqueeze(-1) & covers.unsqueeze(2)).any(1)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Returns IoU ``(N,)`` of ``(N, 4)`` and ``(N, 4)`` xyxy boxes, row by row."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clamp(min=0).prod(-1) for box in (a, b))
    return overlap / (area_a + area_b - overlap + 1e-9)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Returns IoU ``(B, N, M)`` of ``(B, N, 4)`` and ``(B, M, 4)`` xyxy boxes."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1)
    return overlap / (area_a[:, :, None] + area_b[:, None, :] - overlap + 1e-9)
