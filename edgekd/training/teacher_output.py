"""What a teacher says about a batch, whatever the teacher is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

Head = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""A teacher's frozen head: index of a level and a feature ``(B, C, H, W)`` to raw scores
``(B, classes, H, W)`` and boxes ``(B, 4, H, W)``; gradients pass through to the feature."""


@dataclass(frozen=True, slots=True)
class DetectionBatch:
    """What a teacher detected after its own NMS, in the student's input pixels.

    Attributes:
        boxes: ``(B, G, 4)`` xyxy, zero-padded.
        labels: ``(B, G)`` int64, -1 for padding.
        scores: ``(B, G)`` in [0, 1], 0 for padding.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherOutput:
    """One teacher's view of a batch; nothing in it carries a gradient.

    Attributes:
        outputs: Raw outputs on the teacher's own cells; empty for an external detector.
        features: Of the teacher's tapped modules; empty where no method asks for them.
        detections: Detections after NMS, None where no method asks for them.
    """

    outputs: tuple[Tensor, ...] = ()
    features: tuple[Tensor, ...] = ()
    detections: DetectionBatch | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherForm:
    """What a student must know of a teacher to understand its outputs.

    Attributes:
        name: Shown in reports.
        strides: Of the levels in ``outputs``, the teacher's own input pixels; empty for a
            classifier, and for a detector whose outputs only its own decoder understands.
        channels: Of ``features``.
        shapes: Of ``outputs``, at the teacher's own input and a batch of one.
        magnification: The teacher's input pixels for one of the student's.
        head: None where the teacher has none that can be called by itself.
    """

    name: str
    strides: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    magnification: float = 1.0
    head: Head | None = None


Lessons = Sequence[TeacherOutput]
"""One a teacher, in the order of the forms."""
