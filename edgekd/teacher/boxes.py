"""A detector in a model file as a teacher: its detections, and nothing else of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from edgekd.modelfile.memory import try_out
from edgekd.teacher.external_detector import ExternalDetector, load_external_detector_card
from edgekd.teacher.frozen import padded_detections
from edgekd.training.teacher_output import TeacherForm, TeacherOutput


class BoxTeacher:
    """See `edgekd.teacher.frozen.Teacher`.

    Args:
        card: YAML file that declares the model file and its decoder.
        classes: The student's.

    Raises:
        ModelError: The card or the model file cannot be used.
    """

    def __init__(self, card: Path, classes: tuple[str, ...]) -> None:
        declared = load_external_detector_card(card)
        try_out(declared.model)
        self._detector = ExternalDetector(declared, classes)
        self.form = TeacherForm(name=card.stem)
        self.size = self._detector.size
        self.gives = frozenset({"detections"})

    @property
    def identity(self) -> str:
        """Hash of the model file and of what its card says."""
        return self._detector.sha256

    def teacher_output(self, images: Tensor, kinds: Collection[str]) -> TeacherOutput:
        """Returns the detections in the images, in their pixels, where they are asked for."""
        if "detections" not in kinds:
            return TeacherOutput()
        pixels = (images * 128 + 128).round().clamp(0, 255).to(torch.uint8)
        found = self._detector.detect(pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy())
        rows = [(d.boxes, d.scores, d.labels) for d in found]
        return TeacherOutput(detections=padded_detections(rows, images.device))

    def to(self, device: torch.device) -> None:
        """Does nothing: the file's runtime computes on the CPU."""
