"""The detection loss on ground truth, and the decoded view of a network's raw outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.data.loader import Batch
from edgekd.nets.detector import cell_centres
from edgekd.standalone.decoder import MAX_LOG_SIZE, SIZE_PRIOR
from edgekd.training.assigner import TaskAlignedAssigner


@dataclass(frozen=True, slots=True)
class DensePredictions:
    """A detector's raw outputs, levels joined, and what they mean.

    Attributes:
        logits: ``(B, P, C)``.
        raw_boxes: ``(B, P, 4)`` (dx, dy, log w, log h).
        boxes: ``(B, P, 4)`` xyxy in input pixels.
        centres: ``(P, 2)`` cell centres, input pixels.
        strides: ``(P,)``.
    """

    logits: Tensor
    raw_boxes: Tensor
    boxes: Tensor
    centres: Tensor
    strides: Tensor


def dense_predictions(outputs: Sequence[Tensor], strides: Sequence[int]) -> DensePredictions:
    """Returns the joined, decoded levels of ``(scores, boxes)`` pairs, finest first, in float32."""
    scores, boxes = outputs[0::2], outputs[1::2]
    centres, sizes = cell_centres(
        [(s.shape[2], s.shape[3]) for s in scores], strides, scores[0].device
    )
    logits = torch.cat([s.flatten(2).transpose(1, 2) for s in scores], dim=1).float()
    raw = torch.cat([b.flatten(2).transpose(1, 2) for b in boxes], dim=1).float()
    middle = centres + raw[..., :2] * sizes[:, None]
    half = raw[..., 2:].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE).exp() * (SIZE_PRIOR / 2 * sizes[:, None])
    return DensePredictions(
        logits, raw, torch.cat((middle - half, middle + half), dim=-1), centres, sizes
    )


class DetectionLoss:
    """Quality-weighted class loss and IoU loss over task-aligned targets.

    Classes: binary cross-entropy against the soft target, over all cells (each class on its own, as
    the decoder's sigmoid has it). Boxes: 1 - GIoU over positives, weighted by the target's quality.
    Both are divided by the sum of the qualities, so that crowded images weigh no more than empty.
    """

    def __init__(self, *, box_weight: float = 2.5) -> None:
        self.box_weight = box_weight
        self.assigner = TaskAlignedAssigner()

    def __call__(self, prediction: DensePredictions, batch: Batch) -> dict[str, Tensor]:
        """Returns the terms ``class`` and ``box``, weighted; each is a scalar."""
        target = self.assigner(
            probabilities=prediction.logits.sigmoid(),
            boxes=prediction.boxes,
            centres=prediction.centres,
            strides=prediction.strides,
            objects=batch.boxes,
            labels=batch.labels,
            ignore=batch.ignore,
            ignore_labels=batch.ignore_labels,
        )
        total = target.weights.sum().clamp(min=1.0)
        score = functional.binary_cross_entropy_with_logits(
            prediction.logits, target.scores, reduction="none"
        )
        positive = target.weights > 0
        giou = generalized_iou(prediction.boxes[positive], target.boxes[positive])
        return {
            "class": (score * target.valid).sum() / total,
            "box": self.box_weight * ((1 - giou) * target.weights[positive]).sum() / total,
        }


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Returns GIoU ``(N,)`` in [-1, 1] of paired ``(N, 4)`` xyxy boxes (arXiv 1902.09630)."""
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    intersection, enclosure = overlap.prod(-1), hull.prod(-1) + 1e-9
    area_a = (a[:, 2:] - a[:, :2]).prod(-1)
    area_b = (b[:, 2:] - b[:, :2]).prod(-1)
    union = area_a + area_b - intersection + 1e-9
    return intersection / union - (enclosure - union) / enclosure
