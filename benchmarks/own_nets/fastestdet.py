"""FastestDet, a 0.24 M parameter COCO detector by dog-qiuqiu (BSD-3-Clause), defined anew.

A ShuffleNetV2 backbone (Ma et al., arXiv 1807.11164) whose three stages meet at stride 16, a
parallel stack of depthwise 5x5 convolutions, and one anchor-free head. Input: ``(B, 3, H, W)``, BGR
in [0, 1], H and W multiples of 32 (352x352 as published). Modules are named as in the published
state dict, which therefore loads with ``strict=True``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 80
STEM = 24
STAGES = ((48, 4), (96, 8), (192, 4))
"""Output channels and number of blocks of the stages at strides 8, 16 and 32."""
NECK = 96


def build() -> nn.Module:
    """Returns the network as published: one ``(B, 85, H/16, W/16)`` tensor.

    Channels: objectness in [0, 1]; box, whose centre is at the cell plus tanh of the first two
    values and whose size is the sigmoid of the last two; 80 class probabilities that add up to 1.
    """
    return ActivatedFastestDet()


def build_raw() -> nn.Module:
    """Returns the network without its last sigmoid and softmax: three tensors, not one.

    Objectness ``(B, 1, h, w)``, box ``(B, 4, h, w)`` and class logits ``(B, 80, h, w)`` keep a
    quantization scale each; joined, the widest of them would set the step of all.
    """
    return FastestDet()


class FastestDet(nn.Module):
    """The detector, ending at its raw convolution outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ShuffleNet()
        self.SPP = ParallelDepthwise(sum(channels for channels, _ in STAGES), NECK)
        self.detect_head = Head(NECK)
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.upsample = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns objectness, box and class logits at stride 16."""
        fine, middle, coarse = self.backbone(x)
        merged = torch.cat((self.pool(fine), middle, self.upsample(coarse)), dim=1)
        outputs: tuple[Tensor, ...] = self.detect_head(self.SPP(merged))
        return outputs


class ActivatedFastestDet(FastestDet):
    """The same with its activations inside, joined into one tensor."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Returns ``(B, 85, H/16, W/16)``."""
        objectness, box, logits = super().forward(x)
        return torch.cat((objectness.sigmoid(), box, logits.softmax(dim=1)), dim=1)


class ShuffleNet(nn.Module):
    """Features at strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(*_conv_norm(3, STEM, 3, 2), nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = (STEM, *(channels for channels, _ in STAGES))
        self.stage2, self.stage3, self.stage4 = (
            _stage(before, *stage) for before, stage in zip(inputs, STAGES, strict=False)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns 48, 96 and 192 channels, finest first."""
        fine = self.stage2(self.maxpool(self.first_conv(x)))
        middle = self.stage3(fine)
        return fine, middle, self.stage4(middle)


class ShuffleBlock(nn.Module):
    """Keeps half of the channels and convolves the other half (ShuffleNetV2, figure 3c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch_main = _main_branch(channels // 2, channels // 2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the shape of ``x``.

        Shuffling in two groups and then halving is taking the even and the odd channels: two
        strided slices instead of two reshapes and a five-dimensional transpose.
        """
        return torch.cat((x[:, 0::2], self.branch_main(x[:, 1::2])), dim=1)


class DownsamplingBlock(nn.Module):
    """Halves the resolution in two branches over all channels (ShuffleNetV2, figure 3d)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branch_main = _main_branch(inputs, outputs - inputs, stride=2)
        self.branch_proj = nn.Sequential(
            *_conv_norm(inputs, inputs, 3, 2, groups=inputs),
            *_conv_norm(inputs, inputs, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, outputs, H/2, W/2)``."""
        return torch.cat((self.branch_proj(x), self.branch_main(x)), dim=1)


class ParallelDepthwise(nn.Module):
    """One, two and three 5x5 depthwise convolutions side by side: three receptive fields."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.Conv1x1 = PointwiseConv(inputs, outputs)
        self.S1 = _depthwise_chain(outputs, 1)
        self.S2 = _depthwise_chain(outputs, 2)
        self.S3 = _depthwise_chain(outputs, 3)
        self.output = nn.Sequential(*_conv_norm(3 * outputs, outputs, 1))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, outputs, H, W)``."""
        x = self.Conv1x1(x)
        merged = self.output(torch.cat((self.S1(x), self.S2(x), self.S3(x)), dim=1))
        activated: Tensor = self.relu(x + merged)
        return activated


class Head(nn.Module):
    """Objectness, box and class from one feature, each by a depthwise 5x5 and a 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1x1 = PointwiseConv(channels, channels)
        self.obj_layers = Predictor(channels, 1)
        self.reg_layers = Predictor(channels, 4)
        self.cls_layers = Predictor(channels, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns raw objectness, box and class maps."""
        x = self.conv1x1(x)
        return self.obj_layers(x), self.reg_layers(x), self.cls_layers(x)


class PointwiseConv(nn.Module):
    """1x1 convolution, norm and ReLU, under the name that the state dict gives it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Sequential(*_conv_norm(inputs, outputs, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, outputs, H, W)``."""
        y: Tensor = self.conv1x1(x)
        return y


class Predictor(nn.Module):
    """Depthwise 5x5, then a 1x1 whose norm stands in for a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv5x5 = nn.Sequential(
            *_conv_norm(inputs, inputs, 5, groups=inputs),
            nn.ReLU(),
            *_conv_norm(inputs, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, outputs, H, W)``, not activated."""
        y: Tensor = self.conv5x5(x)
        return y


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        DownsamplingBlock(inputs, outputs), *(ShuffleBlock(outputs) for _ in range(blocks - 1))
    )


def _main_branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv_norm(inputs, inputs, 1),
        nn.ReLU(),
        *_conv_norm(inputs, inputs, 3, stride, groups=inputs),
        *_conv_norm(inputs, outputs, 1),
        nn.ReLU(),
    )


def _depthwise_chain(channels: int, length: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(length):
        layers += [*_conv_norm(channels, channels, 5, groups=channels), nn.ReLU()]
    return nn.Sequential(*layers)


def _conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs)
