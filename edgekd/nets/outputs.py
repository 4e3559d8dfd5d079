"""What a network returns: names, roles, shapes, as the contract of an exported file states them."""

from __future__ import annotations

import torch
from torch import nn

from edgekd.core.errors import ModelError
from edgekd.core.types import OutputContract, Task
from edgekd.nets.card import Card

_ROLES = {
    "ssd": ("scores", "boxes"),
    "ssd-raw": ("scores", "boxes"),
    "fastestdet-raw": ("objectness", "boxes", "classes"),
}
"""Roles of the outputs of decoders that read several; the others read one, ``detections``."""


@torch.no_grad()
def network_outputs(net: nn.Module, card: Card) -> tuple[OutputContract, ...]:
    """Returns one contract an output, in its order, for float tensors in torch's layout.

    Args:
        net: Returns a tuple of tensors.
        card: Its card.

    Raises:
        ModelError: An output is no tensor, or the decoder reads another number of outputs.
    """
    training = net.training
    device = next(iter(net.state_dict().values())).device
    outputs = net.eval()(torch.zeros(card.input_shape, device=device))
    net.train(training)
    for output in outputs:
        if not isinstance(output, torch.Tensor):
            raise ModelError(
                f"{card.architecture} returns a {type(output).__name__} among its outputs; it must "
                "return one tensor or a tuple of tensors"
            )
    shapes = [tuple(output.shape) for output in outputs]
    names = _names(card, len(shapes))
    return tuple(
        OutputContract(
            name=f"{role}_{stride}" if stride else role,
            role=role,
            stride=stride,
            shape=shape,
            layout={4: "NCHW", 2: "NC"}.get(len(shape), "any"),  # type: ignore[arg-type]
            dtype="float32",
        )
        for (role, stride), shape in zip(names, shapes, strict=True)
    )


def _names(card: Card, count: int) -> list[tuple[str, int]]:
    """Returns role and stride of each output; the stride is 0 where it is no level."""
    if card.strides:
        names = [(role, stride) for stride in card.strides for role in ("scores", "boxes")]
    elif card.task is Task.CLASSIFICATION:
        names = [("logits", 0)]
    elif card.decoder == "none":
        names = [(f"raw_{index}", 0) for index in range(count)]
    else:
        names = [(role, 0) for role in _ROLES.get(card.decoder, ("detections",))]
    if len(names) != count:
        roles = ", ".join(role for role, _ in names)
        raise ModelError(
            f"{card.architecture} returns {count} outputs, but decoder {card.decoder!r} reads "
            f"{len(names)} ({roles})"
        )
    return names
