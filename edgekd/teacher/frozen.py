"""A frozen teacher: evaluated, never trained, and shown images in its own normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.nets.card import Card, load_net
from edgekd.nets.tap import TappedNet


@dataclass(frozen=True, slots=True)
class Teacher:
    """A source of the distillation signal.

    Attributes:
        card: What the network is and expects.
        net: Frozen, in ``eval`` mode.
        tapped: The same, returning features too.
        channels: Of every tapped feature.
    """

    card: Card
    net: nn.Module
    tapped: TappedNet
    channels: tuple[int, ...]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Returns ``(outputs, features)`` for images in EdgeKD's normalisation.

        Args:
            images: ``(B, C, H, W)``, (pixel - 128) / 128, RGB or grey.
        """
        return self.tapped(self.renormalise(images))  # type: ignore[no-any-return]

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

    def to(self, device: torch.device) -> Teacher:
        """Moves the network to ``device`` and returns self."""
        self.tapped.to(device)
        return self


def load_teacher(path: Path) -> Teacher:
    """Returns the teacher in one of our own checkpoints.

    Raises:
        ModelError: The checkpoint cannot be used.
    """
    net, card = load_net(path)
    return freeze(net, card)


def freeze(net: nn.Module, card: Card) -> Teacher:
    """Returns ``net`` as a teacher; its parameters no longer need gradients."""
    net.requires_grad_(False).eval()
    tapped = TappedNet(net, net.taps)  # type: ignore[arg-type]
    tapped.eval()
    with torch.no_grad():
        device = next(net.parameters()).device
        _, features = tapped(torch.zeros(card.input_shape, device=device))
    return Teacher(card, net, tapped, tuple(f.shape[1] for f in features))


def require_same_classes(teacher: Card, student: Card) -> None:
    """Raises `ModelError` unless teacher and student name the same classes in the same order."""
    if teacher.classes != student.classes:
        raise ModelError(
            f"the teacher's classes {list(teacher.classes)} are not the student's "
            f"{list(student.classes)}; train a teacher on this data set with `edgekd train`"
        )
