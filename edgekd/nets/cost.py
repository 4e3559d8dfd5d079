"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def parameters(net: nn.Module) -> int:
    """Returns the number of parameters, norms included."""
    return sum(p.numel() for p in net.parameters())


@torch.no_grad()
def macs(net: nn.Module, input_shape: tuple[int, int, int, int]) -> int:
    """Returns the multiply-accumulates of convolutions and linear layers for one image."""
    counted = []

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        weight: Tensor = module.weight  # type: ignore[assignment]
        counted.append(output[0].numel() * weight[0].numel())

    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        net(torch.zeros(input_shape, device=next(net.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counted)
