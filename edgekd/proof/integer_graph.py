"""One picture of a quantized network, read from the trained graph or back from a file.

The proof compares what a file says with what was trained, operator by operator. For that the
trained graph, the ONNX file and the TFLite file are read into the same record. It knows two things:

*operators*, which compute new integers, and *moves*, which only put integers elsewhere: slices,
transposes, reshapes, pads, concatenations, nearest resizes, copies between NCHW and NHWC.

Converters merge, split, reorder and invent moves freely, so moves are not compared one by one.
Layers that are kept in float are operators too: their weight, what they make, or both are floats.

Every element that an operator makes gets a number, its *address*; a move is applied to the array of
addresses instead of the values. What an operator reads is then an array of addresses, whatever the
way that led there, and two operators read the same where these arrays are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int8]
Reals = NDArray[np.float64]
Addresses = NDArray[np.int32]

ZERO, OUTSIDE = -1, -2
"""Addresses in a border: a real zero, and no value at all (around a maximum)."""


@dataclass(frozen=True, slots=True)
class QuantizationParameters:
    """Quantization of a tensor, as int8: real = (q - zero_point) * scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """Weight and bias of an operator.

    Attributes:
        values: ``(O, I / groups, kH, kW)`` or ``(O, I)``; int8, or floats of a layer that is kept
            in float.
        scales: ``(O,)``; ones where the values are floats.
        bias: ``(O,)`` real values, zeros where there is none.
        bias_step: ``(O,)`` grid of an integer bias, zeros where the file keeps it float.
    """

    values: IntArray | NDArray[np.float32]
    scales: Reals
    bias: Reals
    bias_step: Reals

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized here."""
        return self.values.dtype != np.int8


def each(stored: Addresses) -> Addresses:
    """Returns the reading of an elementwise operator: every value for itself, ``(..., 1)``."""
    return stored[..., None]


@dataclass(frozen=True, slots=True, eq=False)
class IntegerOperator:
    """One operator that computes, between quantized tensors save where layers are kept in float.

    Attributes:
        name: In its file, for messages.
        kind: ``conv`` and ``linear``, which have a weight; ``add``, ``mul``, ``sigmoid``,
            ``requantize``, ``max_pool``, ``mean`` and ``softmax``, which make each value from a row
            of others.
        inputs: Names of tensors, without constants.
        output: Name of the tensor that it makes.
        grid: Of the output; None for one that stays in float.
        relu: Upper bound of the fused activation: None without one, ``inf`` for ReLU, 6.0.
        weight: Of a weighted operator.
        attributes: ``stride``, ``dilation`` and ``groups`` of a convolution.
        shape: Of the output as stored, with a batch of 1.
        reads: From an input as stored to what the arithmetic sees of it: padded NCHW for a
            convolution, ``(N, I)`` for a linear operator, rows ``(..., n)`` for every other.
        residual: Name of the quantized tensor that a convolution adds to its result before the
            activation; empty where it adds none.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    grid: QuantizationParameters | None
    relu: float | None = None
    weight: Weight | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    reads: Callable[[Addresses], Addresses] = each
    residual: str = ""


Ordered = tuple[IntegerOperator, NDArray[np.intp]]
"""An operator, and where each of its sorted rows was."""


@dataclass(frozen=True, slots=True, eq=False)
class DataMovement:
    """One operator that moves integers and changes none.

    Attributes:
        output: Name of a quantized tensor, or any other where no tensor lies between two moves.
        apply: From the inputs to the output, as stored.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    apply: Callable[[Sequence[Addresses]], Addresses]


@dataclass(frozen=True, slots=True, eq=False)
class IntegerGraph:
    """A quantized network.

    Attributes:
        source: Where it was read, for messages.
        input: Name of the quantized input tensor.
        input_shape: As stored, with a batch of 1.
        grids: QuantizationParameters of every quantized tensor.
        steps: In an order in which they can be executed.
        outputs: Quantized outputs, in order.
        floats: Operators that read or write float tensors: islands.
        channels_last: Whether input, outputs and what convolutions make are stored as NHWC.
    """

    source: str
    input: str
    input_shape: tuple[int, ...]
    grids: dict[str, QuantizationParameters]
    steps: tuple[IntegerOperator | DataMovement, ...]
    outputs: tuple[str, ...]
    floats: tuple[str, ...] = ()
    channels_last: bool = False

    @property
    def operators(self) -> tuple[IntegerOperator, ...]:
        """The steps that compute."""
        return tuple(step for step in self.steps if isinstance(step, IntegerOperator))

    @property
    def kept(self) -> tuple[IntegerOperator, ...]:
        """The operators that are kept in float, in whole or in what they make."""
        return tuple(
            operator
            for operator in self.operators
            if operator.grid is None
            or (operator.weight is not None and operator.weight.is_float)
            or any(name not in self.grids for name in operator.inputs)
        )

    @property
    def moves(self) -> tuple[DataMovement, ...]:
        """The steps that move."""
        return tuple(step for step in self.steps if isinstance(step, DataMovement))
