"""What every distillation method sees: student, teacher and batch, aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from edgekd.data.loader import Batch
from edgekd.training.assigner import Assignment
from edgekd.training.detection import DensePredictions
from edgekd.training.teacher_output import DetectionBatch as DetectionBatch
from edgekd.training.teacher_output import Head as Head


@dataclass(frozen=True, slots=True)
class LevelPair:
    """One feature of the student and the teacher's feature that it is compared with.

    Attributes:
        student: Index among the student's features.
        teacher: Index among the teacher's features.
        student_channels: Channels of the student's feature.
        teacher_channels: Channels of the teacher's feature.
    """

    student: int
    teacher: int
    student_channels: int
    teacher_channels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationBatch:
    """One step's outputs of both networks. Nothing of the teacher carries a gradient.

    Detections cover the student's cells of the paired levels, finest level first; the teacher's are
    aligned with those cells, their boxes in the student's input pixels. A field is None where the
    task or the teacher does not have it.

    Attributes:
        batch: Images and annotation.
        pairs: The features below, in their order.
        student_features: One ``(B, C_s, H, W)`` a pair.
        teacher_features: One ``(B, C_t, H', W')`` a pair; empty where no method asks for them.
        student: Detections of the student.
        teacher: Detections of the teacher.
        sizes: ``(H, W)`` of each paired level; their cells follow one another in ``student``.
        visible: ``(B, P, C)`` False where an ignore region covers the cell.
        target: What annotation asks of the student's cells.
        detections: The teacher's detections after NMS.
        head: The teacher's head.
        student_logits: ``(B, C)``, classification.
        teacher_logits: ``(B, C)``, classification.
        student_outputs: Raw, whatever they mean.
        teacher_outputs: Raw, the teachers' mean; the same tensors where the student's in full
            precision is the teacher. Empty where no method asks for them.
    """

    batch: Batch
    pairs: Sequence[LevelPair] = ()
    student_features: tuple[Tensor, ...] = ()
    teacher_features: tuple[Tensor, ...] = ()
    student: DensePredictions | None = None
    teacher: DensePredictions | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    visible: Tensor | None = None
    target: Assignment | None = None
    detections: DetectionBatch | None = None
    head: Head | None = None
    student_logits: Tensor | None = None
    teacher_logits: Tensor | None = None
    student_outputs: tuple[Tensor, ...] = ()
    teacher_outputs: tuple[Tensor, ...] = ()
