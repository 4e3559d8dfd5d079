"""Networks that are asked and not trained: batch norm folded into the convolutions."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgekd.nets.blocks import ConvNormAct


@torch.no_grad()
def fold_for_inference(net: nn.Module) -> nn.Module:
    """Folds every batch norm of our own blocks and lets ReLUs write over their input, in place.

    On a CPU normalising and rectifying cost as much as the convolutions: they pass over memory that
    these have just left. The outputs are those of before but for rounding.

    Args:
        net: In ``eval`` mode. Blocks of other kinds are left as they are.
    """
    for module in net.modules():
        if not isinstance(module, ConvNormAct):
            continue
        convolution, norm = module[0], module[1]
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        module[0], module[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
        for activation in module.children():
            if isinstance(activation, nn.ReLU):
                activation.inplace = True
    return net
