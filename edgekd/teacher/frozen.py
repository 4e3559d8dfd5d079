"""A frozen network as a teacher: evaluated, never trained, its own normalisation respected."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgekd import decoder
from edgekd.errors import ModelError
from edgekd.files import sha256_of
from edgekd.nets.card import Card, load_net
from edgekd.nets.detector import EdgeDet
from edgekd.nets.outputs import network_outputs
from edgekd.nets.tap import TappedNet
from edgekd.training.inference import specification
from edgekd.training.lesson import Lesson, Objects, TeacherForm
from edgekd.types import OutputContract

MOST_OBJECTS = 100
"""Detections that a lesson has room for; COCO's own limit."""


class Teacher(Protocol):
    """A source of the distillation signal."""

    @property
    def form(self) -> TeacherForm:
        """What a student must know to understand its lessons."""

    @property
    def identity(self) -> str:
        """Hash of everything that its lessons depend on."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its own input; None where it has no preference."""

    @property
    def gives(self) -> frozenset[str]:
        """Kinds of lesson: a choice of ``outputs``, ``features``, ``head``, ``objects``."""

    def lesson(self, images: Tensor, kinds: Collection[str]) -> Lesson:
        """Returns what it says about ``(B, C, H, W)`` images in EdgeKD's normalisation.

        Objects are in the pixels of these images.
        """

    def to(self, device: torch.device) -> None:
        """Moves it to ``device``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetTeacher:
    """A network in torch.

    Attributes:
        card: What the network is and expects.
        net: Frozen, in ``eval`` mode.
        tapped: The same, returning features too.
        outputs: What it returns.
        form: See `Teacher`.
        identity: See `Teacher`.
    """

    card: Card
    net: nn.Module
    tapped: TappedNet
    outputs: tuple[OutputContract, ...]
    form: TeacherForm
    identity: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that it was trained at."""
        return self.card.height, self.card.width

    @property
    def gives(self) -> frozenset[str]:
        """Everything but what a network of this kind does not have."""
        kinds = {"outputs", "features"} if self.form.channels else {"outputs"}
        if self.form.head:
            kinds.add("head")
        if self.card.decoder != "none":
            kinds.add("objects")
        return frozenset(kinds)

    @torch.no_grad()
    def lesson(self, images: Tensor, kinds: Collection[str]) -> Lesson:
        """Returns raw outputs, and features and objects where asked for."""
        outputs, features = self.tapped(self.renormalise(images))
        return Lesson(
            outputs=outputs,
            features=features if "features" in kinds else (),
            objects=self._objects(outputs) if "objects" in kinds else None,
        )

    def renormalise(self, images: Tensor) -> Tensor:
        """Returns the images in the teacher's own normalisation and number of channels."""
        if self.card.channels != images.shape[1]:
            images = (
                images.expand(-1, 3, -1, -1)
                if self.card.channels == 3
                else images.mean(dim=1, keepdim=True)
            )
        if (self.card.mean, self.card.std) == (128.0, 128.0):
            return images
        return (images * 128.0 + 128.0 - self.card.mean) / self.card.std

    def to(self, device: torch.device) -> None:
        """Moves the network to ``device``."""
        self.tapped.to(device)

    def _objects(self, outputs: tuple[Tensor, ...]) -> Objects:
        """Returns the detections after the reference decoder's NMS."""
        arrays = [o.float().cpu().numpy() for o in outputs]
        contract = specification(self.card, self.outputs)
        rows = []
        for index in range(len(arrays[0])):
            one = [a[index : index + 1] for a in arrays]
            rows.append(decoder.detect(one, contract, min_score=0.05, limit=MOST_OBJECTS))
        return padded_objects(rows, outputs[0].device)


def padded_objects(
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]], device: torch.device
) -> Objects:
    """Returns boxes, scores and labels of each image as padded tensors."""
    boxes = torch.zeros(len(rows), MOST_OBJECTS, 4)
    scores = torch.zeros(len(rows), MOST_OBJECTS)
    labels = torch.full((len(rows), MOST_OBJECTS), -1)
    for index, (found, confidence, classes) in enumerate(rows):
        count = min(len(found), MOST_OBJECTS)
        boxes[index, :count] = torch.from_numpy(np.ascontiguousarray(found[:count]))
        scores[index, :count] = torch.from_numpy(np.ascontiguousarray(confidence[:count]))
        labels[index, :count] = torch.from_numpy(np.ascontiguousarray(classes[:count]))
    return Objects(boxes.to(device), labels.to(device), scores.to(device))


def load_teacher(path: Path) -> NetTeacher:
    """Returns the teacher in one of our own checkpoints.

    Raises:
        ModelError: The checkpoint cannot be used.
    """
    net, card = load_net(path)
    return freeze(net, card, sha256_of(path))


def freeze(net: nn.Module, card: Card, identity: str) -> NetTeacher:
    """Returns ``net`` as a teacher; its parameters no longer need gradients."""
    net.requires_grad_(False).eval()
    tapped = TappedNet(net, getattr(net, "taps", ()))
    tapped.eval()
    with torch.no_grad():
        device = next(net.parameters()).device
        _, features = tapped(torch.zeros(card.input_shape, device=device))
    form = TeacherForm(
        name=card.architecture,
        strides=card.strides,
        channels=tuple(f.shape[1] for f in features),
        head=net.head if isinstance(net, EdgeDet) else None,
    )
    return NetTeacher(
        card=card,
        net=net,
        tapped=tapped,
        outputs=network_outputs(net, card),
        form=form,
        identity=identity,
    )


def at_scale(teacher: NetTeacher, magnification: float) -> NetTeacher:
    """Returns the teacher with so many of its pixels for one of the student's."""
    return replace(teacher, form=replace(teacher.form, magnification=magnification))


def require_same_classes(teacher: Card, student: Card) -> None:
    """Raises `ModelError` unless teacher and student name the same classes in the same order."""
    if teacher.classes != student.classes:
        raise ModelError(
            f"the teacher's classes {list(teacher.classes)} are not the student's "
            f"{list(student.classes)}; train a teacher on this data set with `edgekd train`"
        )
