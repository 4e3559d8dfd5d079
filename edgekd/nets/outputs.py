"""What a network returns: names, roles, shapes, as the contract of an exported file states them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from edgekd.config.decoders import Shape, shape_text, shapes_fit
from edgekd.core.errors import ModelError
from edgekd.core.serialize import to_mapping
from edgekd.core.types import OutputContract, Task
from edgekd.nets.card import Card
from edgekd.standalone.decoder import DECODERS


@torch.no_grad()
def network_outputs(net: nn.Module, card: Card) -> tuple[OutputContract, ...]:
    """Returns one contract an output, in its order, for float tensors in torch's layout.

    Args:
        net: Returns a tuple of tensors.
        card: Its card.

    Raises:
        ModelError: An output is no tensor, or the decoder reads another number of outputs or
            outputs of other shapes.
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
    if card.own and card.decoder != "none":
        _require_shapes(card, shapes)
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
        names = [(role, 0) for role in _expected(card)]
    if len(names) != count:
        roles = ", ".join(role for role, _ in names)
        raise ModelError(
            f"{card.architecture} returns {count} outputs, but decoder {card.decoder!r} reads "
            f"{len(names)} ({roles})"
        )
    return names


def _expected(card: Card) -> Mapping[str, Shape]:
    """Returns the shapes that the decoder of a network of the user's own reads, by role."""
    priors = card.own.priors if card.own else None
    expected: Mapping[str, Shape] = DECODERS[card.decoder].outputs(
        len(card.classes), card.height, card.width, priors and to_mapping(priors)
    )
    return expected


def _require_shapes(card: Card, shapes: Sequence[tuple[int, ...]]) -> None:
    expected = _expected(card)
    if not shapes_fit(shapes, list(expected.values())):
        found = ", ".join(map(shape_text, shapes))
        wanted = ", ".join(f"{role} {shape_text(shape)}" for role, shape in expected.items())
        raise ModelError(
            f"{card.architecture} returns {found}; decoder {card.decoder!r} with "
            f"{len(card.classes)} classes and an input of {card.width} x {card.height} reads "
            f"{wanted}"
        )
