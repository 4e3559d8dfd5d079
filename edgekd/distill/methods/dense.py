"""Distillation methods that compare what two detectors say at every cell.

Options have their defaults in `edgekd.config.methods`; a class says what it computes and who
proposed it. ``z`` are class logits ``(B, P, C)``, ``p`` their sigmoids, ``b`` boxes; ``_s`` is the
student, ``_t`` the teacher. What an ignore region hides counts nowhere, neither in a sum nor in its
divisor. Divisors are at least 1, so that a batch without objects is not blown up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.core.types import Task
from edgekd.distill.batch_context import DetectionBatch, DistillationBatch, LevelPair
from edgekd.distill.method import register_method
from edgekd.distill.methods.features import projectors
from edgekd.distill.methods.response import required
from edgekd.training.assigner import Assignment, TaskAlignedAssigner, pairwise_iou
from edgekd.training.detection import DensePredictions, dense_predictions, generalized_iou


@register_method(
    "logits",
    tasks={Task.DETECTION},
    needs={"dense-predictions"},
    weight=10.0,
    options={"gamma": 1.0},
    cost="next to nothing; caches raw outputs",
    source="Li et al., arXiv 2006.04388, with the teacher as target",
    summary="the teacher's class scores, most where the student differs",
)
class ScoreWeightedLogits(nn.Module):
    """Binary cross-entropy against the teacher's class probabilities, 0 where student = teacher.

    sum |p_t - p_s|^gamma KL(p_t || p_s) / sum_cells max_c p_t. The factor, as in quality focal loss
    (Li et al., arXiv 2006.04388), says how much there is to learn at a cell, or the many easy
    background cells drown the objects; it gets no gradient. Divided by the teacher's mass, so that
    crowded images weigh no more than empty ones.
    """

    def __init__(self, _pairs: Sequence[LevelPair], *, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' detections."""
        student, teacher = _detections(given)
        return _score_loss(student.logits, teacher.logits, _visible(given, teacher), self.gamma)


@register_method(
    "boxes",
    tasks={Task.DETECTION},
    needs={"dense-predictions"},
    weight=20.0,
    cost="next to nothing; caches raw outputs",
    source="Rezatofighi et al., arXiv 1902.09630, weighted by the teacher's score",
    summary="the teacher's boxes where it sees something",
)
class ScoreWeightedBoxes(nn.Module):
    """Difference of boxes where the teacher sees something, 0 where student = teacher.

    sum w (1 - GIoU(b_s, b_t)) / sum w, w = (max_c p_t)^2: squared, so that it comes from objects
    and not from the many cells with a trace of one. GIoU: Rezatofighi et al., arXiv 1902.09630.
    """

    def __init__(self, _pairs: Sequence[LevelPair]) -> None:
        super().__init__()

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' detections."""
        student, teacher = _detections(given)
        return _box_loss(student.boxes, teacher.boxes, _certain(teacher, _visible(given, teacher)))


@register_method(
    "dense-soft-labels",
    tasks={Task.DETECTION},
    needs={"dense-predictions"},
    weight=0.03,
    options={"temperature": 2.0},
    cost="next to nothing; caches raw outputs",
    source="Hinton et al., arXiv 1503.02531, class by class",
    summary="the teacher's class scores at every cell, softened, background in full",
)
class DenseSoftLabels(nn.Module):
    """Softened binary divergence of every class at every cell, 0 where student = teacher.

    T^2 sum KL(sigmoid(z_t / T) || sigmoid(z_s / T)) / sum_cells max_c p_t: soft labels for a
    detector whose classes do not exclude each other. T^2 because the gradients of softened logits
    shrink with 1/T^2; divided by the teacher's mass as in `ScoreWeightedLogits`, but not weighted:
    background counts in full.

    Hinton, Vinyals and Dean, arXiv 1503.02531, class by class.
    """

    def __init__(self, _pairs: Sequence[LevelPair], *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' detections."""
        student, teacher = _detections(given)
        visible = _visible(given, teacher)
        softened = (teacher.logits / self.temperature).sigmoid()
        divergence = _divergence(student.logits / self.temperature, softened) * visible
        mass = _best(teacher, visible).sum().clamp(min=1.0)
        return divergence.sum() / mass * self.temperature**2


@register_method(
    "dense-logit-matching",
    tasks={Task.DETECTION},
    needs={"dense-predictions"},
    weight=0.1,
    cost="next to nothing; caches raw outputs",
    source="Ba and Caruana, arXiv 1312.6184, weighted by the teacher's score",
    summary="the teacher's class logits where it sees something",
)
class DenseLogitMatching(nn.Module):
    """Squared error of class logits where the teacher sees something, 0 where student = teacher.

    sum_cells w mean_c (z_s - z_t)^2 / sum_cells w, w = max_c p_t. All classes of a cell count
    alike, unlikely ones too: that is where a teacher says which classes resemble each other. Not
    centred as its relative for classifiers is: a sigmoid does see what is added to all logits.

    Ba and Caruana, arXiv 1312.6184, at the cells of a detector.
    """

    def __init__(self, _pairs: Sequence[LevelPair]) -> None:
        super().__init__()

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' detections."""
        student, teacher = _detections(given)
        visible = _visible(given, teacher)
        weight = _best(teacher, visible)
        error = ((student.logits - teacher.logits).square() * visible).mean(-1)
        return (weight * error).sum() / weight.sum().clamp(min=1.0)


@register_method(
    "localization",
    tasks={Task.DETECTION},
    needs={"dense-predictions", "detections", "labels"},
    weight=1.0,
    options={"valuable": 1.0, "overlap": 0.5, "min_score": 0.3},
    cost="an overlap of every cell with every object; caches raw outputs and detections",
    source="Zheng et al., arXiv 2102.12252, for boxes without distributions",
    summary="the teacher's boxes where annotation or its own detections make them matter",
)
class Localization(nn.Module):
    """Difference of boxes where annotation or the teacher makes a box matter, 0 where equal.

    L(main) + ``valuable`` L(valuable), L = sum w (1 - GIoU(b_s, b_t)) / sum w:

    * main region: cells that annotation assigns to an object, w = their target's quality;
    * valuable region: the other cells whose teacher box overlaps an object that the teacher
      detects with a score of at least ``min_score`` by an IoU of at least ``overlap``;
      w = score IoU, of the object where that is highest.

    Zheng et al., arXiv 2102.12252, compare distributions of a box's edges. Boxes here are single
    numbers without such a distribution, hence GIoU. Their valuable region takes anchors near an
    annotated box, by their DIoU with it. Cells here have no anchor box, so the teacher's own box
    tells what a cell means; and the teacher's detections stand for the annotation, so that objects
    that nobody annotated are taught too.
    """

    def __init__(
        self, _pairs: Sequence[LevelPair], *, valuable: float, overlap: float, min_score: float
    ) -> None:
        super().__init__()
        self.valuable, self.overlap, self.min_score = valuable, overlap, min_score

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' detections, annotation's target and objects."""
        student, teacher = _detections(given)
        target = required(given.target, "what annotation asks of the cells")
        detections = required(given.detections, "the teacher's detections")
        seen = _visible(given, teacher).any(-1)
        main = target.weights * seen
        valuable = self._overlap_with(detections, teacher) * seen * (target.weights == 0)
        return _box_loss(student.boxes, teacher.boxes, main) + self.valuable * _box_loss(
            student.boxes, teacher.boxes, valuable
        )

    @torch.no_grad()
    def _overlap_with(self, detections: DetectionBatch, teacher: DensePredictions) -> Tensor:
        """Returns ``(B, P)`` score times IoU of the confident object that a cell means, or 0."""
        worth = teacher.boxes.new_zeros(teacher.boxes.shape[:2])
        image, rank = torch.nonzero(detections.scores >= self.min_score, as_tuple=True)
        if len(image) == 0:
            return worth
        # One image at a time and its certain objects alone: padding would be most of the work.
        for index in torch.unique(image):
            sure = rank[image == index]
            overlap = pairwise_iou(detections.boxes[index, sure][None], teacher.boxes[index][None])[
                0
            ]
            value = (
                overlap * detections.scores[index, sure].unsqueeze(-1) * (overlap >= self.overlap)
            )
            worth[index] = value.amax(0)
        return worth


@register_method(
    "crosskd",
    tasks={Task.DETECTION},
    needs={"dense-predictions", "head"},
    weight=0.3,
    options={"gamma": 1.0, "box_weight": 2.0},
    cost="a pass through the teacher's head and back; caches raw outputs",
    source="Wang et al., arXiv 2306.11369",
    summary="features from which the teacher's own head reads the teacher's detections",
)
class CrossHead(nn.Module):
    """CrossKD: what the teacher's head makes of the student's features, against its own words.

    `ScoreWeightedLogits` + ``box_weight`` `ScoreWeightedBoxes`, between the teacher's detections
    and head(projector(F_s)). The student's own head is left to annotation, whose targets
    contradict the teacher's at some cells; only its features are taught, by a head that knows what
    matters in them. 0 where the projected feature is the teacher's. The head is frozen, which is
    its owner's duty: gradients pass through it to the projector and the student.

    Wang et al., arXiv 2306.11369; there the student's feature enters halfway into the head.
    """

    def __init__(self, pairs: Sequence[LevelPair], *, gamma: float, box_weight: float) -> None:
        super().__init__()
        self.projectors = projectors(pairs)
        self.gamma, self.box_weight = gamma, box_weight

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs the student's features, the teacher's detections and head."""
        _, teacher = _detections(given)
        visible = _visible(given, teacher)
        crossed = self._crossed(given)
        scores = _score_loss(crossed.logits, teacher.logits, visible, self.gamma)
        boxes = _box_loss(crossed.boxes, teacher.boxes, _certain(teacher, visible))
        return scores + self.box_weight * boxes

    def _crossed(self, given: DistillationBatch) -> DensePredictions:
        """Returns the head's detections at the student's cells, in the student's input pixels."""
        head = required(given.head, "the teacher's own head")
        features = required(given.student_features, "the student's features")
        # Further features, if any, are compared with another teacher's, which has another head.
        outputs = [
            output
            for index in range(len(given.sizes))
            for output in head(index, self.projectors[index](features[index].float()))
        ]
        image_height = given.batch.images.shape[2]
        return dense_predictions(outputs, [image_height // height for height, _ in given.sizes])


@register_method(
    "teacher-boxes",
    tasks={Task.DETECTION},
    needs={"detections"},
    weight=0.2,
    options={"min_score": 0.3, "soft": 1.0, "box_weight": 2.5},
    cost="a second assignment of detections to cells; caches detections",
    source="Sohn et al., arXiv 2005.04757",
    summary="the detections of any teacher, external detectors included, as if annotated",
)
class TeacherBoxes(nn.Module):
    """The detection loss on the teacher's detections, as if they were annotation.

    (sum KL(y || p_s) + ``box_weight`` sum w (1 - GIoU(b_s, object))) / sum w. DetectionBatch below
    ``min_score`` are ignored; the others are assigned to cells as annotation is, by the student's
    own predictions (TOOD, arXiv 2108.07755). w = the assigned quality times the object's score, and
    so is y at ``soft`` = 1; at 0 it is the quality alone, as if a person had drawn the box.

    A divergence in place of the cross-entropy shifts the loss by the target's entropy: its bound 0
    is reached where the student's boxes and scores are its targets'. That is not where student =
    teacher, whose other cells hold what NMS took away. Needs nothing of the teacher but boxes.

    Pseudo-labels: Lee, ICML 2013 workshop; for detectors, Sohn et al., arXiv 2005.04757.
    """

    def __init__(
        self, _pairs: Sequence[LevelPair], *, min_score: float, soft: float, box_weight: float
    ) -> None:
        super().__init__()
        self.min_score, self.soft, self.box_weight = min_score, soft, box_weight
        self.assigner = TaskAlignedAssigner()

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs the student's detections and the teacher's."""
        student = required(given.student, "the student's detections")
        detections = required(given.detections, "the teacher's detections")
        visible = _visible(given, student)
        labels = torch.where(detections.scores >= self.min_score, detections.labels, -1)
        target = self._assign(student, detections.boxes, labels)
        score = _owner_score(target, detections)
        quality = target.scores * visible
        weight = quality.amax(-1) * score
        asked = quality * (1 - self.soft + self.soft * score).unsqueeze(-1)
        divergence = (_divergence(student.logits, asked) * visible).sum()
        boxes = _box_loss(student.boxes, target.boxes, weight)
        return divergence / weight.sum().clamp(min=1.0) + self.box_weight * boxes

    def _assign(self, student: DensePredictions, boxes: Tensor, labels: Tensor) -> Assignment:
        return self.assigner(
            probabilities=student.logits.sigmoid(),
            boxes=student.boxes,
            centres=student.centres,
            strides=student.strides,
            objects=boxes,
            labels=labels,
            ignore=boxes[:, :0],
            ignore_labels=labels[:, :0],
        )


def _detections(given: DistillationBatch) -> tuple[DensePredictions, DensePredictions]:
    student = required(given.student, "the student's detections")
    teacher = required(given.teacher, "the teacher's detections")
    return student, replace(teacher, logits=teacher.logits.detach(), boxes=teacher.boxes.detach())


def _visible(given: DistillationBatch, like: DensePredictions) -> Tensor:
    """Returns ``(B, P, C)``, all True where the signal hides nothing."""
    if given.visible is None:
        return torch.ones_like(like.logits, dtype=torch.bool)
    return given.visible


def _best(teacher: DensePredictions, visible: Tensor) -> Tensor:
    """Returns ``(B, P)``: the probability of each cell's best visible class."""
    return (teacher.logits.sigmoid() * visible).amax(-1)


def _certain(teacher: DensePredictions, visible: Tensor) -> Tensor:
    """Returns ``(B, P)``: how much a teacher's box is worth."""
    return _best(teacher, visible).square()


def _score_loss(student: Tensor, teacher: Tensor, visible: Tensor, gamma: float) -> Tensor:
    """Returns `ScoreWeightedLogits` of logits ``(B, P, C)``."""
    target = teacher.sigmoid()
    weight = (target - student.detach().sigmoid()).abs().pow(gamma) * visible
    mass = (target * visible).amax(-1).sum().clamp(min=1.0)
    return (weight * _divergence(student, target)).sum() / mass


def _divergence(student: Tensor, target: Tensor) -> Tensor:
    """Returns KL(target || sigmoid(student)) of every class on its own; ``target`` in [0, 1]."""
    cross = functional.binary_cross_entropy_with_logits(student, target, reduction="none")
    return cross - functional.binary_cross_entropy(target, target, reduction="none")


def _box_loss(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Returns the weighted mean of 1 - GIoU of boxes ``(B, P, 4)``."""
    seen = weight > 1e-3  # The rest is most of the cells and next to nothing of the sum.
    gap = 1 - generalized_iou(student[seen], teacher[seen])
    return (gap * weight[seen]).sum() / weight.sum().clamp(min=1.0)


@torch.no_grad()
def _owner_score(target: Assignment, detections: DetectionBatch) -> Tensor:
    """Returns ``(B, P)``: the score of the object that a cell answers for, 0 for background."""
    if detections.scores.shape[1] == 0:
        return torch.zeros_like(target.weights)
    return detections.scores.gather(1, target.owner.clamp(min=0)) * (target.owner >= 0)
