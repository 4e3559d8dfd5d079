"""A network and its card: what it is, what it expects, what its outputs mean.

A checkpoint is one safetensors file whose metadata holds the card as JSON. Nothing is unpickled.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from torch import nn

from edgekd.core.errors import ModelError
from edgekd.core.files import write_atomic
from edgekd.core.serialize import from_mapping
from edgekd.core.types import STRIDES, Priors, Task
from edgekd.nets.backbone import channels_last, scale_of
from edgekd.nets.classifier import EdgeCls
from edgekd.nets.detector import EdgeDet

METADATA_KEY = "edgekd"
"""Of the card, among a checkpoint's metadata."""

SMALL_PIXELS = 64
"""Inputs up to this side get a classifier with a stride of 8 in place of 32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomCard:
    """What has to be said about a network that EdgeKD did not define.

    Attributes:
        task: What it does.
        decoder: How `edgekd.standalone.decoder` reads its outputs; ``none`` for a classifier, or
            where only the raw outputs matter.
        mean: Of its own normalisation, in pixels: one number, or one a channel.
        std: Likewise.
        colour: Order of its channels.
        resize: How an image is fitted to its input.
        priors: Strides and sizes of prior boxes, for a decoder that has some.
    """

    task: Task
    decoder: str = "none"
    mean: tuple[float, ...] = (128.0,)
    std: tuple[float, ...] = (128.0,)
    colour: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["letterbox", "stretch"] = "letterbox"
    priors: Priors | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What a network is.

    Attributes:
        architecture: Family member, such as ``edgedet-n`` or ``edgecls-s``; for a network of the
            user's own the name of the function that makes it.
        classes: Names, indexed by label.
        height: Of the input, pixels; a multiple of the largest stride.
        width: Of the input, pixels.
        channels: 1 (grey) or 3 (RGB).
        mean: Subtracted from a pixel in 0..255.
        std: Then divided by.
        strides: Pixels of the input per cell, one a level; empty for a classifier.
        own: Set for a network of the user's own.
    """

    architecture: str
    classes: tuple[str, ...]
    height: int
    width: int
    channels: int = 3
    mean: float = 128.0
    std: float = 128.0
    strides: tuple[int, ...] = (8, 16, 32)
    own: CustomCard | None = None

    def __post_init__(self) -> None:
        if self.strides and self.strides not in STRIDES:
            raise ModelError(f"strides {list(self.strides)}: neighbours of 4, 8, 16, 32, rising")
        coarsest = max(self.strides, default=1)
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < coarsest or value % coarsest:
                raise ModelError(f"input {name} {value}: must be a multiple of {coarsest}")
        if self.channels not in (1, 3):
            raise ModelError(f"channels {self.channels}: legal are 1 (grey) and 3 (RGB)")
        if not self.classes:
            raise ModelError("a network needs at least one class")

    @property
    def task(self) -> Task:
        """Detection for edgedet, classification for edgecls; an own network says it itself."""
        if self.own:
            return self.own.task
        detects = self.architecture.startswith("edgedet")
        return Task.DETECTION if detects else Task.CLASSIFICATION

    @property
    def learns_from_annotation(self) -> bool:
        """Whether EdgeKD has a loss for its outputs: not for a detector of the user's own."""
        return self.own is None or self.task is Task.CLASSIFICATION

    @property
    def decoder(self) -> str:
        """How `edgekd.standalone.decoder` reads the outputs."""
        if self.own:
            return self.own.decoder
        return "edgedet" if self.task is Task.DETECTION else "none"

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """``(1, C, H, W)``."""
        return (1, self.channels, self.height, self.width)


def readable(card: Card) -> bool:
    """Returns whether the raw outputs can be turned into classes or boxes."""
    return card.task is Task.CLASSIFICATION or card.decoder != "none"


Net = EdgeDet | EdgeCls


def build(card: Card, seed: int = 0) -> Net:
    """Returns a freshly initialised network, the same for the same seed.

    Raises:
        ModelError: No such architecture, or a user's own network: that takes its function.
    """
    if card.own:
        raise ModelError(
            f"these weights belong to {card.architecture!r}, a network that EdgeKD did not define; "
            "name the function that makes it"
        )
    net: Net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if card.architecture.startswith("edgecls"):
            scale = scale_of(card.architecture, "edgecls")
            net = EdgeCls(
                scale=scale,
                classes=len(card.classes),
                channels=card.channels,
                small=max(card.height, card.width) <= SMALL_PIXELS,
            )
        else:
            scale = scale_of(card.architecture, "edgedet")
            net = EdgeDet(
                scale=scale,
                classes=len(card.classes),
                channels=card.channels,
                strides=card.strides,
            )
    channels_last(net)
    return net


def save_net(path: Path, net: nn.Module, card: Card, *, half: bool = False) -> None:
    """Writes weights and card as safetensors; ``half`` stores weights as float16."""
    state = {
        name: (value.half() if half and value.is_floating_point() else value).contiguous()
        for name, value in net.state_dict().items()
    }
    blob = safetensors.torch.save(state, {METADATA_KEY: json.dumps(asdict(card), sort_keys=True)})
    write_atomic(path, blob)


def load_card(path: Path) -> Card:
    """Returns the card in a checkpoint, without reading its weights.

    Raises:
        ModelError: Not a safetensors file of ours.
    """
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path}: not a .safetensors checkpoint; pickled checkpoints (.pt, .pth) can run code "
            "when they are loaded and are not accepted, `edgekd train` writes safetensors"
        )
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint")
    try:
        with safetensors.safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error})") from error
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{path}: safetensors without an {METADATA_KEY!r} card; `edgekd train` writes one"
        )
    try:
        described = json.loads(metadata[METADATA_KEY])
    except ValueError as error:
        raise ModelError(f"{path}: its card is not JSON ({error})") from error
    return from_mapping(Card, described, str(path), ModelError)


def load_net(path: Path) -> tuple[Net, Card]:
    """Returns the network in a checkpoint, in ``eval`` mode, and its card.

    Raises:
        ModelError: The file is not one of ours, or its weights do not fit its card.
    """
    card = load_card(path)
    net = build(card)
    try:
        net.load_state_dict(load_weights(path))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise ModelError(f"{path}: weights do not fit {card.architecture}: {first}") from error
    net.eval()
    return net, card


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a checkpoint that `load_card` accepts, halves as float32."""
    state = safetensors.torch.load_file(path)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
