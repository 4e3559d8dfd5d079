"""Fake-quantization modules: what the integer runtime will do to a tensor, differentiable.

The scales that these modules hold are the scales that every exported file carries; nothing is
re-calibrated on the way out. Scale floors apply in training already, so that a dead channel is
trained as it will be executed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e import FakeQuantizeBase

WIDEN, NARROW = 0.2, 0.01
"""How fast an observed range grows and shrinks towards a batch's range. Growing faster matters
where several tensors share one scale (concatenation): a plain average would clip the widest."""

DEAD_CHANNEL = 2.0**-10
"""Smallest scale of a weight channel relative to its tensor's largest. Below it the int32 bias,
which is quantized at input scale times weight scale, could overflow."""


class ActivationFakeQuantize(FakeQuantizeBase):  # type: ignore[misc]
    """Rounds an activation to int8 with one scale and zero point, and observes its range.

    Args:
        symmetric: Zero point 0, as TensorRT demands; else affine.
        scale_floor: Smallest scale.
        fixed: Scale and zero point that never move (camera input, sigmoid, softmax).
        observer_only: The target rounds nothing here, but another runtime, which is given a file of
            the same scales, does.
    """

    dtype = torch.int8
    quant_min, quant_max = -128, 127
    ch_axis = -1
    is_dynamic = False

    scale: Tensor
    zero_point: Tensor
    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        symmetric: bool,
        scale_floor: float,
        fixed: tuple[float, int] | None = None,
        observer_only: bool = False,
        **_spec: Any,  # noqa: ANN401 - torchao passes the spec's own fields, which are fixed here
    ) -> None:
        super().__init__()
        self.symmetric, self.scale_floor, self.fixed = symmetric, scale_floor, fixed
        self.observer_only = observer_only
        self.qscheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
        scale, zero_point = fixed or (1.0, 0)
        self.register_buffer("scale", torch.tensor([scale], dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor([zero_point], dtype=torch.int32))
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` on the integer grid (or ``x`` itself while only observing)."""
        if self.fixed is None and self.observer_enabled[0]:
            self._observe(x.detach())
        if self.observer_only or not self.fake_quant_enabled[0]:
            return x
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, self.quant_min, self.quant_max
        )

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Returns scale and zero point, each ``(1,)``."""
        return self.scale, self.zero_point

    def _observe(self, x: Tensor) -> None:
        # Viewed in the order of its memory: aminmax would copy a channels-last tensor first.
        low, high = torch.aminmax(x.permute(0, 2, 3, 1) if x.ndim == 4 else x)
        if self.seen:
            low = self.low + (low - self.low) * torch.where(low < self.low, WIDEN, NARROW)
            high = self.high + (high - self.high) * torch.where(high > self.high, WIDEN, NARROW)
        self.low.copy_(low)
        self.high.copy_(high)
        self.seen.fill_(True)
        # Zero must be exactly representable: it is the padding of every convolution.
        below, above = self.low.clamp(max=0.0), self.high.clamp(min=0.0)
        if self.symmetric:
            scale = torch.maximum(-below, above) / 127.0
            self.scale.copy_(scale.clamp(min=self.scale_floor))
            return
        scale = ((above - below) / 255.0).clamp(min=self.scale_floor)
        self.scale.copy_(scale)
        self.zero_point.copy_((-128 - torch.round(below / scale)).clamp(-128, 127))


class WeightFakeQuantize(FakeQuantizeBase):  # type: ignore[misc]
    """Rounds a weight to int8 in [-127, 127], symmetric, one scale for each output channel.

    Args:
        axis: Of the output channels: 0, or 1 for a transposed convolution.
    """

    dtype = torch.int8
    quant_min, quant_max = -127, 127
    qscheme = torch.per_channel_symmetric
    is_dynamic = False

    scale: Tensor
    zero_point: Tensor

    def __init__(self, *, axis: int = 0, **_spec: Any) -> None:  # noqa: ANN401 - as above
        super().__init__()
        self.ch_axis = axis
        # Follow from the weight alone, so they are not state.
        self.register_buffer("scale", torch.ones(1), persistent=False)
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Returns ``weight`` on the integer grid of its present range."""
        self.measure(weight.detach())
        if not self.fake_quant_enabled[0]:
            return weight
        return torch.fake_quantize_per_channel_affine(
            weight, self.scale, self.zero_point, self.ch_axis, self.quant_min, self.quant_max
        )

    def measure(self, weight: Tensor) -> None:
        """Sets the scales from the weight itself."""
        peaks = weight.transpose(0, self.ch_axis).flatten(1).abs().amax(1)
        scale = peaks / 127.0
        scale = torch.maximum(scale, scale.max() * DEAD_CHANNEL).clamp(min=1e-12)
        if self.scale.shape != scale.shape:
            self.scale = torch.ones_like(scale)
            self.zero_point = torch.zeros_like(scale, dtype=torch.int32)
        self.scale.copy_(scale)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Returns scales and zero points, each ``(channels,)``."""
        return self.scale, self.zero_point
