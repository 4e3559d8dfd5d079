"""What every distillation method sees: student, teacher and batch, aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from edgekd.data.loader import Batch
from edgekd.errors import ModelError
from edgekd.training.detection import DenseDetections


@dataclass(frozen=True, slots=True)
class LevelPair:
    """One feature of the student and the teacher's feature that it is compared with.

    Attributes:
        stride: Pixels of the input per cell, the same for both.
        student: Index among the student's features.
        teacher: Index among the teacher's features.
        student_channels: Channels of the student's feature.
        teacher_channels: Channels of the teacher's feature.
    """

    stride: int
    student: int
    teacher: int
    student_channels: int
    teacher_channels: int


@dataclass(frozen=True, slots=True)
class Signal:
    """One step's outputs of both networks.

    Attributes:
        student: Decoded raw outputs, None for classification.
        teacher: The same of the teacher, over the same cells; carries no gradient.
        student_logits: ``(B, C)`` for classification, else None.
        teacher_logits: ``(B, C)`` for classification, else None.
        student_features: One ``(B, C_s, H, W)`` a pair.
        teacher_features: One ``(B, C_t, H', W')`` a pair.
        visible: ``(B, P, C)`` False where an ignore region covers the cell; None for
            classification.
        batch: Images and annotation.
    """

    student: DenseDetections | None
    teacher: DenseDetections | None
    student_logits: Tensor | None
    teacher_logits: Tensor | None
    student_features: tuple[Tensor, ...]
    teacher_features: tuple[Tensor, ...]
    visible: Tensor | None
    batch: Batch


def pair_levels(
    student_strides: Sequence[int],
    student_channels: Sequence[int],
    teacher_strides: Sequence[int],
    teacher_channels: Sequence[int],
) -> tuple[LevelPair, ...]:
    """Returns the levels that both networks have, paired by stride, finest first.

    Raises:
        ModelError: They share no stride.
    """
    shared = sorted(set(student_strides) & set(teacher_strides))
    if not shared:
        raise ModelError(
            f"no level in common: student strides {list(student_strides)}, "
            f"teacher strides {list(teacher_strides)}"
        )
    pairs = []
    for stride in shared:
        s, t = list(student_strides).index(stride), list(teacher_strides).index(stride)
        pairs.append(LevelPair(stride, s, t, student_channels[s], teacher_channels[t]))
    return tuple(pairs)
