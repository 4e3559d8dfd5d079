"""Weights of one network as the start of another: other classes, channels, levels, widths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.nets.card import Card, Net

_LEVEL = re.compile(r"^(pyramid\.(?:lateral|out)|scores|boxes)\.(\d+)\.")
_STEP = re.compile(r"^(pyramid\.(?:top_down|down))\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a network took over.

    Attributes:
        taken: Tensors that were copied.
        total: Tensors of the network.
        fresh: Names of those that keep their random start.
    """

    taken: int
    total: int
    fresh: tuple[str, ...]


@torch.no_grad()
def transfer(net: Net, card: Card, state: Mapping[str, Tensor], source: Card) -> Transfer:
    """Copies into ``net`` every tensor of ``state`` that has the same place and shape there.

    The same place means the same stride in a pyramid, whatever the level's index. The stem's
    weights are summed over colours, or spread over them, where the number of channels differs.

    Args:
        net: Changed in place.
        card: Of ``net``.
        state: Weights of the other network.
        source: Its card.
    """
    fresh, own = [], net.state_dict()
    for name, value in own.items():
        other = state.get(_name_in(name, card, source))
        if other is not None and name == "backbone.stem.0.weight":
            other = _recoloured(other, value.shape[1])
        if other is None or other.shape != value.shape or _is_class_layer(name, card, source):
            fresh.append(name)
        else:
            value.copy_(other)
    return Transfer(len(own) - len(fresh), len(own), tuple(fresh))


def _name_in(name: str, card: Card, source: Card) -> str:
    """Returns the name that the tensor has in the source network, empty where it has none."""
    for pattern, offset in ((_LEVEL, 0), (_STEP, 1)):
        match = pattern.match(name)
        if match:
            stride = card.strides[int(match[2]) + offset]
            if stride not in source.strides[offset:]:
                return ""
            index = source.strides.index(stride) - offset
            return f"{match[1]}.{index}.{name[match.end() :]}"
    return name


def _recoloured(weight: Tensor, channels: int) -> Tensor:
    if channels == weight.shape[1]:
        return weight
    summed = weight.sum(dim=1, keepdim=True)
    return (summed / channels).expand(-1, channels, -1, -1)


def _is_class_layer(name: str, card: Card, source: Card) -> bool:
    """Returns whether a tensor makes class logits and the classes differ."""
    makes_logits = re.match(r"scores\.\d+\.1\.|classify\.", name) is not None
    return makes_logits and card.classes != source.classes
