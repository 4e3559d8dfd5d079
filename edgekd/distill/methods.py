"""The distillation methods, by name.

A method is an ``nn.Module`` that takes a `Signal` and returns one scalar, unweighted. What it needs
beyond its options (projectors, say) it builds from the level pairs it is given. Adding a method is
one class and one `register` line; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill.signal import LevelPair, Signal
from edgekd.registry import Registry
from edgekd.training.detection import DenseDetections, generalized_iou
from edgekd.types import Task


@dataclass(frozen=True, slots=True)
class Method:
    """An entry of the registry.

    Attributes:
        build: Returns the module for the given pairs of levels.
        tasks: Tasks that it serves.
        needs_features: Whether it compares features (else outputs only).
        weight: Default weight beside the task loss.
        source: Where it comes from.
    """

    build: Callable[[Sequence[LevelPair]], nn.Module]
    tasks: frozenset[Task]
    needs_features: bool
    weight: float
    source: str


methods: Registry[Method] = Registry("distillation method")

_DETECTION = frozenset({Task.DETECTION})
_CLASSIFICATION = frozenset({Task.CLASSIFICATION})


class ScoreWeightedLogits(nn.Module):
    """Binary cross-entropy against the teacher's class probabilities, at every cell.

    Each cell is weighted by how much there is to say about it, |p_t - p_s|^gamma, as in quality
    focal loss (arXiv 2006.04388), or millions of easy background cells drown the objects. Divided
    by the teacher's mass, sum of max_c p_t, so that crowded images weigh no more than empty ones.
    The minimum (the teacher's entropy, which is constant) is subtracted: 0 where student = teacher.
    """

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, signal: Signal) -> Tensor:
        """Returns the loss; needs both networks' detections."""
        student_seen, teacher_seen = _detections(signal)
        student, target = student_seen.logits, teacher_seen.logits.sigmoid()
        cross = functional.binary_cross_entropy_with_logits(student, target, reduction="none")
        entropy = functional.binary_cross_entropy(target, target, reduction="none")
        weight = (target - student.detach().sigmoid()).abs().pow(self.gamma)
        if signal.visible is not None:
            weight = weight * signal.visible
        mass = target.amax(-1).sum().clamp(min=1.0)
        return (weight * (cross - entropy)).sum() / mass


class ScoreWeightedBoxes(nn.Module):
    """1 - GIoU between the student's and the teacher's boxes, weighted by the teacher's score.

    The weight is the square of the best class probability, so that it comes from cells where the
    teacher sees something (score-weighted regression, as in arXiv 2111.14330's dense variants).
    """

    def forward(self, signal: Signal) -> Tensor:
        """Returns the loss; needs both networks' detections."""
        student, teacher = _detections(signal)
        scores = teacher.logits.sigmoid()
        if signal.visible is not None:
            scores = scores * signal.visible
        weight = scores.amax(-1).square()
        seen = weight > 1e-3
        giou = generalized_iou(student.boxes[seen], teacher.boxes[seen])
        return ((1 - giou) * weight[seen]).sum() / weight.sum().clamp(min=1.0)


class Pearson(nn.Module):
    """PKD: mean squared error of features after each channel is normalised over the batch.

    Equals 1 - Pearson correlation, so that it asks for the pattern and not for the teacher's scale
    (Cao et al., arXiv 2207.02039). A 1x1 projector joins features with other channel counts, and
    the student's feature is resized where its resolution differs.
    """

    def __init__(self, pairs: Sequence[LevelPair]) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(
            nn.Identity()
            if pair.student_channels == pair.teacher_channels
            else nn.Conv2d(pair.student_channels, pair.teacher_channels, 1)
            for pair in pairs
        )

    def forward(self, signal: Signal) -> Tensor:
        """Returns the mean over levels; needs both networks' features."""
        terms = []
        for projector, student, teacher in zip(
            self.projectors, signal.student_features, signal.teacher_features, strict=True
        ):
            projected = projector(student)
            if projected.shape[2:] != teacher.shape[2:]:
                projected = functional.interpolate(
                    projected, teacher.shape[2:], mode="bilinear", align_corners=False
                )
            difference = _standardise(projected) - _standardise(teacher)
            terms.append(difference.square().mean() / 2)
        return torch.stack(terms).mean()


class SoftLabels(nn.Module):
    """Kullback-Leibler divergence of softened class distributions (Hinton, arXiv 1503.02531).

    Multiplied by T^2 because the gradients of softened logits shrink with 1/T^2; summed over
    classes and averaged over images (``batchmean``), not over classes.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, signal: Signal) -> Tensor:
        """Returns the loss; needs both networks' class logits."""
        if signal.student_logits is None or signal.teacher_logits is None:
            raise ValueError("soft labels need the class logits of student and teacher")
        student = functional.log_softmax(signal.student_logits / self.temperature, dim=1)
        teacher = functional.log_softmax(signal.teacher_logits / self.temperature, dim=1)
        divergence = functional.kl_div(student, teacher, log_target=True, reduction="batchmean")
        return divergence * self.temperature**2


def _detections(signal: Signal) -> tuple[DenseDetections, DenseDetections]:
    if signal.student is None or signal.teacher is None:
        raise ValueError("this method needs the detections of student and teacher")
    return signal.student, signal.teacher


def _standardise(feature: Tensor) -> Tensor:
    """Returns the feature with zero mean and unit variance a channel, over batch and space."""
    rows = feature.float().transpose(0, 1).flatten(1)
    centred = rows - rows.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True).sqrt() + 1e-6)


methods.register("logits")(
    Method(lambda _pairs: ScoreWeightedLogits(), _DETECTION, False, 1.0, "score-weighted response")
)
methods.register("boxes")(
    Method(lambda _pairs: ScoreWeightedBoxes(), _DETECTION, False, 2.0, "score-weighted response")
)
methods.register("pkd")(
    Method(Pearson, _DETECTION | _CLASSIFICATION, True, 4.0, "arXiv 2207.02039")
)
methods.register("soft-labels")(
    Method(lambda _pairs: SoftLabels(), _CLASSIFICATION, False, 1.0, "arXiv 1503.02531")
)
