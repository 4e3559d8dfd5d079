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
        boxes: ``(B, P, 4)`` xyxy of the assigned object, input pixels.
        weights: ``(B, P)`` of each positive in the box loss; zero for background.
        valid: ``(B, P, C)`` False where an ignore region hides a background cell.
    """

    scores: Tensor
    boxes: Tensor
    weights: Tensor
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
        classes = probabilities.shape[-1]
        if objects.shape[1] == 0:  # A batch without any object: one row of padding.
            objects = objects.new_zeros((len(objects), 1, 4))
            labels = labels.new_full((len(labels), 1), -1)
        real = labels >= 0
        overlap = pairwise_iou(objects, boxes)  # (B, G, P)
        index = labels.clamp(min=0).unsqueeze(-1).expand(-1, -1, boxes.shape[1])
        score = probabilities.transpose(1, 2).gather(1, index)  # (B, G, P)
        inside, near = _reach(centres, strides, objects)
        candidate = (inside | near) & real.unsqueeze(-1)
        alignment = score.pow(self.alpha) * overlap.pow(self.beta) * candidate

        # The tiny term orders candidates that do not overlap yet, so that every object is learnt
        # from the first step on.
        ranked = (alignment + 1e-9 * score) * candidate
        best = ranked.topk(min(self.top_k, ranked.shape[-1]), dim=-1).indices
        chosen = torch.zeros_like(candidate).scatter_(-1, best, True) & candidate
        contested = chosen.sum(1, keepdim=True) > 1
        owner = torch.where(chosen, overlap, -1.0).argmax(1)  # (B, P)
        sole = torch.zeros_like(chosen).scatter_(1, owner.unsqueeze(1), True)
        chosen = torch.where(contested, chosen & sole, chosen)
        positive = chosen.any(1)
        owner = chosen.float().argmax(1)

        alignment = alignment * chosen
        peak = alignment.amax(-1, keepdim=True)
        top_overlap = (overlap * chosen).amax(-1, keepdim=True)
        quality = (alignment / (peak + 1e-12) * top_overlap).amax(1) * positive  # (B, P)

        assigned = labels.clamp(min=0).gather(1, owner)
        scores = torch.zeros_like(probabilities)
        scores.scatter_(-1, assigned.unsqueeze(-1), quality.unsqueeze(-1))
        hidden = hidden_cells(centres, ignore, ignore_labels, classes)
        return Assignment(
            scores=scores,
            boxes=objects.gather(1, owner.unsqueeze(-1).expand(-1, -1, 4)),
            weights=quality,
            valid=~hidden | positive.unsqueeze(-1),
        )


def _reach(centres: Tensor, strides: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """Returns which cells lie inside ``(B, G, P)``, and which within one cell of the middle."""
    x, y = centres[:, 0], centres[:, 1]
    left, top, right, bottom = objects.unsqueeze(-1).unbind(2)
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


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Returns IoU ``(B, N, M)`` of ``(B, N, 4)`` and ``(B, M, 4)`` xyxy boxes."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1)
    return overlap / (area_a[:, :, None] + area_b[:, None, :] - overlap + 1e-9)
