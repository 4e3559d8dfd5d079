"""Two UltraFace detectors by Linzaer (MIT), RFB and slim, defined anew.

A thirteen-layer MobileNetV1-like net with SSD heads (Liu et al., arXiv 1512.02325) at strides 8,
16, 32 and 64; the RFB version puts a receptive field block (Liu et al., arXiv 1711.07767) before
the finest head. Input: ``(B, 3, H, W)``, RGB, (pixel - 127) / 128, 240x320 as published. Modules
are named as in the published state dicts, which therefore load with ``strict=True``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

CLASSES = 2
"""Background and face."""
ANCHORS = (3, 2, 2, 3)
"""Prior boxes a cell, finest level first."""
CHANNELS = (64, 128, 256, 256)
"""Of the features that the heads see, finest first."""
LAYERS = (
    (32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1),
    (128, 2), (128, 1), (128, 1), (256, 2), (256, 1),
)  # fmt: skip
"""Output channels and stride of the layers after the stem; all but RFB are separable."""
WIDENED = 7
"""Layer of the base net that the RFB version replaces."""
LEVELS = (7, 10, 12)
"""Layers of the base net whose results have a head."""


def build() -> nn.Module:
    """Returns the RFB version: raw logits ``(B, N, 2)`` and raw locations ``(B, N, 4)``.

    N counts the priors, 4420 for 240x320, ordered by level, row, column and prior. A location is
    (dx, dy, log w, log h) against its prior; softmax and decoding are left to the caller.
    """
    return UltraFace(ReceptiveField(64))


def build_slim() -> nn.Module:
    """Returns the slim version, which has one more separable layer instead of the RFB."""
    return UltraFace(_separable(64, 64, 1))


class UltraFace(nn.Module):
    """The detector, ending at what its convolutions compute."""

    def __init__(self, widened: nn.Module) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv_norm_act(3, 16, 3, 2))]
        inputs = 16
        for outputs, stride in LAYERS:
            layers.append(_separable(inputs, outputs, stride))
            inputs = outputs
        layers[WIDENED] = widened
        self.base_net = nn.ModuleList(layers)
        reduce = nn.Conv2d(inputs, 64, 1)
        self.extras = nn.ModuleList(
            [nn.Sequential(reduce, nn.ReLU(), _biased_separable(64, CHANNELS[-1], 2), nn.ReLU())]
        )
        self.classification_headers = _headers(CLASSES)
        self.regression_headers = _headers(4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits ``(B, N, 2)``, background first, and locations ``(B, N, 4)``."""
        features = []
        for index, layer in enumerate(self.base_net):
            x = layer(x)
            if index in LEVELS:
                features.append(x)
        features.append(self.extras[0](x))
        return (
            _rows(zip(self.classification_headers, features, strict=True), CLASSES),
            _rows(zip(self.regression_headers, features, strict=True), 4),
        )


class ReceptiveField(nn.Module):
    """Three branches that end in 3x3 convolutions of dilation 2, 3 and 5, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, wide = channels // 8, channels // 4
        self.branch0 = nn.Sequential(
            _named_conv(channels, narrow, 1),
            _named_conv(narrow, wide, 3, act=True),
            _named_conv(wide, wide, 3, dilation=2),
        )
        self.branch1 = nn.Sequential(
            _named_conv(channels, narrow, 1),
            _named_conv(narrow, wide, 3, act=True),
            _named_conv(wide, wide, 3, dilation=3),
        )
        between = (narrow + wide) // 2
        self.branch2 = nn.Sequential(
            _named_conv(channels, narrow, 1),
            _named_conv(narrow, between, 3, act=True),
            _named_conv(between, wide, 3, act=True),
            _named_conv(wide, wide, 3, dilation=5),
        )
        self.ConvLinear = _named_conv(3 * wide, channels, 1)
        self.shortcut = _named_conv(channels, channels, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the shape of ``x``."""
        branches = torch.cat((self.branch0(x), self.branch1(x), self.branch2(x)), dim=1)
        y: Tensor = self.relu(self.ConvLinear(branches) + self.shortcut(x))
        return y


def _rows(heads: Iterable[tuple[nn.Module, Tensor]], values: int) -> Tensor:
    """Returns ``(B, N, values)``, one row a prior, from every level's ``(B, A values, h, w)``."""
    rows = []
    for head, feature in heads:
        maps = head(feature)
        # Spelt with the batch left open, the target shape is constant in the exported graph.
        priors = maps.shape[1] // values * maps.shape[2] * maps.shape[3]
        rows.append(maps.permute(0, 2, 3, 1).reshape(-1, priors, values))
    return torch.cat(rows, dim=1)


def _headers(values: int) -> nn.ModuleList:
    """Returns one head a level: separable but for the coarsest, where a dense 3x3 is cheap."""
    *separable, (channels, anchors) = zip(CHANNELS, ANCHORS, strict=True)
    heads: list[nn.Module] = [_biased_separable(c, a * values, 1) for c, a in separable]
    return nn.ModuleList([*heads, nn.Conv2d(channels, anchors * values, 3, padding=1)])


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv_norm_act(inputs, inputs, 3, stride, groups=inputs),
        *_conv_norm_act(inputs, outputs, 1, 1),
    )


def _biased_separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Returns a separable convolution without norms, as after the base net."""
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs)
    return nn.Sequential(depthwise, nn.ReLU(), nn.Conv2d(inputs, outputs, 1))


def _conv_norm_act(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()


def _named_conv(
    inputs: int, outputs: int, kernel: int, *, dilation: int = 1, act: bool = False
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, 1, padding, dilation, bias=False),
        bn=nn.BatchNorm2d(outputs),
    )
    if act:
        layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)
