"""edgedet: a detector for integer hardware. Raw per-level outputs; the decoder is outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.core.types import FEATURES
from edgekd.nets.backbone import Backbone, Scale, initialise
from edgekd.nets.blocks import ConvNormAct, Separable, round_channels


class Pyramid(nn.Module):
    """Top-down then bottom-up feature pyramid that merges by addition.

    Addition rather than concatenation: an int8 concatenation forces one scale on all its inputs,
    an addition rescales each.
    """

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNormAct(c, channels) for c in inputs)
        self.top_down = nn.ModuleList(Separable(channels, channels) for _ in inputs[1:])
        self.down = nn.ModuleList(Separable(channels, channels, 2) for _ in inputs[1:])
        self.out = nn.ModuleList(Separable(channels, channels) for _ in inputs)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Returns one ``(B, channels, H_l, W_l)`` a level, finest first."""
        levels = [layer(x) for layer, x in zip(self.lateral, features, strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            upsampled = functional.interpolate(levels[index + 1], scale_factor=2.0, mode="nearest")
            levels[index] = self.top_down[index](levels[index] + upsampled)
        outputs = [self.out[0](levels[0])]
        for index in range(1, len(levels)):
            merged = levels[index] + self.down[index - 1](outputs[-1])
            outputs.append(self.out[index](merged))
        return outputs


class Branch(nn.Sequential):
    """One branch of the head at one level: separable convolutions, then a 1x1 with bias."""

    def __init__(self, channels: int, outputs: int, depth: int) -> None:
        super().__init__(
            *(Separable(channels, channels) for _ in range(depth)),
            nn.Conv2d(channels, outputs, 1),
        )

    @property
    def last(self) -> nn.Conv2d:
        """The 1x1 convolution that makes the raw outputs."""
        return cast(nn.Conv2d, self[-1])


class EdgeDet(nn.Module):
    """Anchor-free detector with separate class and box branches at every level.

    Separate outputs because one int8 scale cannot serve class logits and box values.

    Attributes:
        strides: Pixels of the input per cell, one a level; neighbours of `FEATURES`.
        taps: Paths of the modules whose outputs are the pyramid's levels, for feature distillation.
    """

    def __init__(
        self,
        *,
        scale: Scale,
        classes: int,
        channels: int = 3,
        strides: tuple[int, ...] = (8, 16, 32),
    ) -> None:
        super().__init__()
        self.strides = strides
        self.backbone = Backbone(channels, scale, features=FEATURES.index(strides[-1]) + 1)
        width = round_channels(scale.neck * scale.width)
        inputs = self.backbone.channels[-len(strides) :]
        self.pyramid = Pyramid(inputs, width)
        self.scores = nn.ModuleList(Branch(width, classes, 1) for _ in strides)
        self.boxes = nn.ModuleList(Branch(width, 4, 1) for _ in strides)
        initialise(self)
        self._prior()

    @property
    def taps(self) -> tuple[str, ...]:
        """Module paths of the pyramid's outputs, finest first."""
        return tuple(f"pyramid.out.{index}" for index in range(len(self.strides)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns class logits and raw boxes, level by level.

        Args:
            x: ``(B, C, H, W)``, (pixel - 128) / 128; H and W multiples of the largest stride.

        Returns:
            ``(scores, boxes)`` a level, flattened, finest first: ``(B, classes, H/s, W/s)`` logits
            and ``(B, 4, H/s, W/s)`` raw (dx, dy, log w, log h), decoded by
            `edgekd.standalone.decoder`.
        """
        outputs: list[Tensor] = []
        features = self.backbone(x)[-len(self.strides) :]
        for level, feature in enumerate(self.pyramid(features)):
            outputs += [self.scores[level](feature), self.boxes[level](feature)]
        return tuple(outputs)

    def head(self, level: int, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Returns raw scores and boxes of one level for any feature of the pyramid's width."""
        return self.scores[level](feature), self.boxes[level](feature)

    def _prior(self, probability: float = 0.01) -> None:
        """Starts every class at ``probability`` (focal loss, arXiv 1708.02002, section 3.3)."""
        for branch in (*self.scores, *self.boxes):
            nn.init.normal_(cast(Branch, branch).last.weight, std=0.01)
        for branch in self.scores:
            bias = cast(Tensor, cast(Branch, branch).last.bias)
            nn.init.constant_(bias, -math.log((1 - probability) / probability))


def cell_centres(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns cell centres ``(P, 2)`` in input pixels (x, y) and their strides ``(P,)``."""
    centres, sizes = [], []
    for (height, width), stride in zip(shapes, strides, strict=True):
        ys = (torch.arange(height, device=device) + 0.5) * stride
        xs = (torch.arange(width, device=device) + 0.5) * stride
        grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
        centres.append(torch.stack((grid_x, grid_y), dim=-1).reshape(-1, 2))
        sizes.append(torch.full((height * width,), float(stride), device=device))
    return torch.cat(centres), torch.cat(sizes)
