"""A frozen network as a teacher: evaluated, never trained, its own normalisation respected."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.core.errors import ModelError
from edgekd.core.files import sha256_of
from edgekd.core.types import Task
from edgekd.nets.card import Card, build, load_card, load_net
from edgekd.nets.detector import EdgeDet
from edgekd.nets.folding import fold_for_inference
from edgekd.nets.outputs import network_outputs
from edgekd.nets.tap import TappedNet
from edgekd.standalone import decoder
from edgekd.training.inference import specification
from edgekd.training.teacher_output import DetectionBatch, Head, TeacherForm, TeacherOutput

MOST_DETECTIONS = 100
"""Detections that a teacher's output has room for; COCO's own limit."""


class Teacher(Protocol):
    """A source of the distillation signal."""

    @property
    def form(self) -> TeacherForm:
        """What a student must know to understand its outputs."""

    @property
    def identity(self) -> str:
        """Hash of everything that its outputs depend on."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its own input; None where it has no preference."""

    @property
    def gives(self) -> frozenset[str]:
        """What it can be asked for, in the words of `edgekd.distill.method.NEEDS`."""

    def teacher_output(self, images: Tensor, kinds: Collection[str]) -> TeacherOutput:
        """Returns what it says about ``(B, C, H, W)`` images in EdgeKD's normalisation.

        DetectionBatch are in the pixels of these images.
        """

    def to(self, device: torch.device) -> None:
        """Moves it to ``device``."""


class NetTeacher:
    """A network in torch, in memory from its first batch on and not before.

    Args:
        card: What the network is and expects.
        load: Returns the network with its weights.
        blank: A network of the same form, looked at for shapes and not kept.
        identity: See `Teacher`.
    """

    def __init__(
        self, card: Card, load: Callable[[], nn.Module], blank: nn.Module, identity: str
    ) -> None:
        self.card, self.identity = card, identity
        self.outputs = network_outputs(blank, card)
        head = self._head if isinstance(blank, EdgeDet) else None
        self.form = _form(blank, card, head, tuple(o.shape for o in self.outputs))
        self._load, self._device = load, torch.device("cpu")
        self._tapped: TappedNet | None = None

    @property
    def tapped(self) -> TappedNet:
        """The network, frozen, its norms folded, returning features too."""
        if self._tapped is None:
            net = fold_for_inference(self.network()).requires_grad_(False)
            self._tapped = TappedNet(net, _taps(net)).eval().to(self._device)
        return self._tapped

    def network(self) -> nn.Module:
        """Returns the network as it was trained, in ``eval`` mode, on the CPU."""
        return self._load().eval()

    @property
    def in_memory(self) -> bool:
        """Whether the network has been loaded."""
        return self._tapped is not None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that it was trained at."""
        return self.card.height, self.card.width

    @property
    def gives(self) -> frozenset[str]:
        """Everything but what a network of this kind does not have."""
        kinds = {"outputs", "features"} if self.form.channels else {"outputs"}
        if self.card.task is Task.CLASSIFICATION:
            kinds.add("logits")
        if self.form.strides:
            kinds.add("dense-predictions")
        if self.form.head:
            kinds.add("head")
        if self.card.decoder != "none":
            kinds.add("detections")
        return frozenset(kinds)

    @torch.no_grad()
    def teacher_output(self, images: Tensor, kinds: Collection[str]) -> TeacherOutput:
        """Returns raw outputs, and features and detections where asked for."""
        outputs, features = self.tapped(self.renormalise(images))
        return TeacherOutput(
            outputs=outputs,
            features=features if "features" in kinds else (),
            detections=self._detections(outputs) if "detections" in kinds else None,
        )

    def renormalise(self, images: Tensor) -> Tensor:
        """Returns the images in the teacher's own normalisation and number of channels."""
        if self.card.channels != images.shape[1]:
            grey = self.card.channels == 1
            images = _luma(images) if grey else images.expand(-1, 3, -1, -1)
        if (self.card.mean, self.card.std) == (128.0, 128.0):
            return images
        return (images * 128.0 + 128.0 - self.card.mean) / self.card.std

    def to(self, device: torch.device) -> None:
        """Moves the network to ``device``, or says where it shall be loaded."""
        self._device = device
        if self._tapped is not None:
            self._tapped.to(device)

    def at_scale(self, magnification: float) -> NetTeacher:
        """Returns the teacher with so many of its pixels for one of the student's."""
        scaled = copy.copy(self)
        scaled.form = replace(
            self.form,
            magnification=magnification,
            head=scaled._head if self.form.head else None,
        )
        return scaled

    def _head(self, level: int, feature: Tensor) -> tuple[Tensor, Tensor]:
        net = self.tapped.net
        if not isinstance(net, EdgeDet):
            raise ModelError(f"{self.card.architecture} has no head that can be called by itself")
        return net.head(level, feature)

    def _detections(self, outputs: tuple[Tensor, ...]) -> DetectionBatch:
        """Returns the detections after the reference decoder's NMS."""
        arrays = [o.float().cpu().numpy() for o in outputs]
        contract = specification(self.card, self.outputs)
        rows = []
        for index in range(len(arrays[0])):
            one = [a[index : index + 1] for a in arrays]
            rows.append(decoder.detect(one, contract, min_score=0.05, limit=MOST_DETECTIONS))
        return padded_detections(rows, outputs[0].device)


def _luma(images: Tensor) -> Tensor:
    """Returns grey images, ITU-R 601 luma as everywhere, of RGB ones."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device, dtype=images.dtype)
    return (images * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def padded_detections(
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]], device: torch.device
) -> DetectionBatch:
    """Returns boxes, scores and labels of each image as padded tensors."""
    boxes = torch.zeros(len(rows), MOST_DETECTIONS, 4)
    scores = torch.zeros(len(rows), MOST_DETECTIONS)
    labels = torch.full((len(rows), MOST_DETECTIONS), -1)
    for index, (found, confidence, classes) in enumerate(rows):
        count = min(len(found), MOST_DETECTIONS)
        boxes[index, :count] = torch.from_numpy(np.ascontiguousarray(found[:count]))
        scores[index, :count] = torch.from_numpy(np.ascontiguousarray(confidence[:count]))
        labels[index, :count] = torch.from_numpy(np.ascontiguousarray(classes[:count]))
    return DetectionBatch(boxes.to(device), labels.to(device), scores.to(device))


def load_teacher(path: Path) -> NetTeacher:
    """Returns the teacher in one of our own checkpoints.

    Raises:
        ModelError: The checkpoint cannot be used.
    """
    card = load_card(path)
    return NetTeacher(card, lambda: load_net(path)[0], build(card), sha256_of(path))


@torch.no_grad()
def _form(
    blank: nn.Module, card: Card, head: Head | None, shapes: tuple[tuple[int, ...], ...]
) -> TeacherForm:
    _, features = TappedNet(blank, _taps(blank)).eval()(torch.zeros(card.input_shape))
    return TeacherForm(
        name=card.architecture,
        strides=card.strides,
        channels=tuple(f.shape[1] for f in features),
        shapes=shapes,
        head=head,
    )


def _taps(net: nn.Module) -> tuple[str, ...]:
    return getattr(net, "taps", ())


def require_same_classes(teacher: Card, student: Card) -> None:
    """Raises `ModelError` unless teacher and student name the same classes in the same order."""
    if teacher.classes != student.classes:
        raise ModelError(
            f"the teacher's classes {list(teacher.classes)} are not the student's "
            f"{list(student.classes)}; train a teacher on this data set with `edgekd train`"
        )
