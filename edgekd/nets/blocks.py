"""Building blocks that have an int8 kernel on every target: convolution, ReLU, add, pool, nearest.

No block uses an operator whose int8 form differs between TFLite, ONNX Runtime and TensorRT; SiLU
and hard-swish are left out on purpose (SiLU becomes a float island in TFLite).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StridedDepthwise(nn.Conv2d):
    """A depthwise convolution with a stride, trained in float32 even where the rest is not.

    oneDNN's backward pass of it in bfloat16 is four to twelve times slower than in float32: three
    such layers were a fifth of edgedet-n's training step.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns the convolution, in the precision of ``input``."""
        if not (self.training and torch.is_autocast_enabled(input.device.type)):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float()).to(input.dtype)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, and ReLU unless ``act`` is False."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        convolution = StridedDepthwise if groups > 1 and stride > 1 else nn.Conv2d
        super().__init__(
            convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            *([nn.ReLU()] if act else []),
        )


class FusedInvertedResidual(nn.Module):
    """Dense 3x3 expansion, 1x1 projection, residual where shapes agree.

    Dense convolutions run faster than depthwise ones at high resolution and few channels on
    anything with a dot-product unit (MobileDets, Xiong et al., arXiv 2004.14525).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: float) -> None:
        super().__init__()
        hidden = round_channels(inputs * expansion)
        self.expand = ConvNormAct(inputs, hidden, 3, stride)
        self.project = ConvNormAct(hidden, outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, outputs, H / stride, W / stride)``."""
        y: Tensor = self.project(self.expand(x))
        return x + y if self.residual else y


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection (MobileNetV2, arXiv 1801.04381)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, expansion: float, kernel: int = 3
    ) -> None:
        super().__init__()
        hidden = round_channels(inputs * expansion)
        self.expand = ConvNormAct(inputs, hidden)
        self.depthwise = ConvNormAct(hidden, hidden, kernel, stride, groups=hidden)
        self.project = ConvNormAct(hidden, outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, outputs, H / stride, W / stride)``."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Separable(nn.Sequential):
    """Depthwise convolution, then 1x1, each with norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__(
            ConvNormAct(inputs, inputs, kernel, stride, groups=inputs),
            ConvNormAct(inputs, outputs),
        )


class PoolPyramid(nn.Module):
    """Three chained 5x5 max-pools, concatenated and projected: a wide receptive field, cheaply."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = round_channels(channels / 2)
        self.reduce = ConvNormAct(channels, hidden)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.merge = ConvNormAct(hidden * 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the same shape as ``x``."""
        pooled = [self.reduce(x)]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        merged: Tensor = self.merge(torch.cat(pooled, dim=1))
        return merged


def round_channels(channels: float, divisor: int = 8) -> int:
    """Returns the nearest multiple of ``divisor`` (SIMD width), at least one ``divisor``."""
    return max(divisor, int(channels / divisor + 0.5) * divisor)
