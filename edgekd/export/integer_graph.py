"""One picture of a quantized network, read from the trained graph or back from a file.

The proof compares what a file says with what was trained, operator by operator. For that the
trained graph, the ONNX file and the TFLite file are read into the same record, in which layout
(NCHW or NHWC), padding operators and Q/DQ notation have disappeared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ProofError

IntArray = NDArray[np.int8]
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Quantization of a tensor, as int8: real = (q - zero_point) * scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """Quantized weight and bias of an operator.

    Attributes:
        values: ``(O, I / groups, kH, kW)`` or ``(O, I)``.
        scales: ``(O,)``.
        bias: ``(O,)`` real values, zeros where there is none.
        bias_step: ``(O,)`` grid of an integer bias, zeros where the file keeps it float.
    """

    values: IntArray
    scales: Reals
    bias: Reals
    bias_step: Reals


@dataclass(frozen=True, slots=True, eq=False)
class IntegerOperator:
    """One operator between quantized tensors.

    Attributes:
        name: In its file, for messages.
        kind: ``conv``, ``linear``, ``add``, ``mul``, ``concat``, ``max_pool``, ``mean``,
            ``resize``, ``reshape``, ``sigmoid``.
        inputs: Names of quantized tensors, without constants.
        output: Name of the quantized tensor that it makes.
        grid: Of the output.
        relu: Upper bound of the fused activation: None without one, ``inf`` for ReLU, 6.0.
        weight: Of a weighted operator.
        attributes: ``stride``, ``padding`` (left, right, top, bottom), ``dilation``, ``groups``,
            ``kernel``, ``axis``, ``shape``.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    grid: Grid
    relu: float | None = None
    weight: Weight | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class IntegerGraph:
    """A quantized network.

    Attributes:
        source: Where it was read, for messages.
        input: Name of the quantized input tensor.
        grids: Grid of every quantized tensor.
        operators: In an order in which they can be executed.
        outputs: Quantized outputs, in order.
        floats: Operators that read or write float tensors: islands.
    """

    source: str
    input: str
    grids: dict[str, Grid]
    operators: tuple[IntegerOperator, ...]
    outputs: tuple[str, ...]
    floats: tuple[str, ...] = ()


Pairs = list[tuple[IntegerOperator, IntegerOperator]]


def align(trained: IntegerGraph, shipped: IntegerGraph) -> Pairs:
    """Returns each trained operator with the shipped one that computes it.

    Follows the wiring from the input: an operator's partner has the same kind and reads the
    partners of its inputs. Where several do (two branches on one feature), the one whose weight is
    equal, else the first in the file's order, is taken.

    Raises:
        ProofError: An operator has no partner, or one is left over.
    """
    partner = {trained.input: shipped.input}
    free = list(shipped.operators)
    pairs: Pairs = []
    for operator in trained.operators:
        inputs = tuple(partner[name] for name in operator.inputs)
        fits = [o for o in free if o.kind == operator.kind and _same_inputs(o, inputs)]
        if not fits:
            raise ProofError(
                f"{shipped.source}: nothing there computes {operator.kind} {operator.name!r} "
                f"from {', '.join(inputs)}"
            )
        found = next((o for o in fits if _same_weight(o.weight, operator.weight)), fits[0])
        free.remove(found)
        partner[operator.output] = found.output
        pairs.append((operator, found))
    if free:
        raise ProofError(f"{shipped.source}: {free[0].kind} {free[0].name!r} was never trained")
    wired = tuple(partner[name] for name in trained.outputs)
    if wired != shipped.outputs:
        raise ProofError(f"{shipped.source}: outputs {shipped.outputs}, trained were {wired}")
    return pairs


def _same_inputs(operator: IntegerOperator, inputs: Sequence[str]) -> bool:
    if operator.kind in ("add", "mul"):
        return sorted(operator.inputs) == sorted(inputs)
    return operator.inputs == tuple(inputs)


def _same_weight(a: Weight | None, b: Weight | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.values.shape == b.values.shape and bool((a.values == b.values).all())


@dataclass(frozen=True, slots=True)
class Difference:
    """A parameter of the file that is not what was trained."""

    operator: str
    what: str


def parameter_differences(
    trained: IntegerGraph, shipped: IntegerGraph, pairs: Pairs
) -> list[Difference]:
    """Returns every parameter of the file that differs from the trained one, in graph order.

    Integer weights and zero points must be equal, scales equal to float32 rounding, biases within
    half a step of the grid that the file keeps them on.
    """
    found = []
    grid_t, grid_s = trained.grids[trained.input], shipped.grids[shipped.input]
    found += [Difference("input", text) for text in _grid_differences(grid_t, grid_s)]
    for operator, partner in pairs:
        texts = _grid_differences(operator.grid, partner.grid)
        texts += _weight_differences(operator.weight, partner.weight)
        texts += _attribute_differences(operator, partner)
        found += [Difference(f"{operator.name} ({partner.name})", text) for text in texts]
    return found


def _grid_differences(trained: Grid, shipped: Grid) -> list[str]:
    texts = []
    if not np.isclose(trained.scale, shipped.scale, rtol=1e-6, atol=0):
        texts.append(f"output scale {shipped.scale:.9g}, trained {trained.scale:.9g}")
    if trained.zero_point != shipped.zero_point:
        texts.append(f"output zero point {shipped.zero_point}, trained {trained.zero_point}")
    return texts


def _weight_differences(trained: Weight | None, shipped: Weight | None) -> list[str]:
    if trained is None or shipped is None:
        return [] if trained is shipped else ["a weight on one side only"]
    if trained.values.shape != shipped.values.shape:
        return [f"weight shape {shipped.values.shape}, trained {trained.values.shape}"]
    changed = (trained.values != shipped.values).reshape(len(trained.values), -1).any(axis=1)
    scaled = ~np.isclose(trained.scales, shipped.scales, rtol=1e-6, atol=0)
    step = shipped.bias_step
    biased = np.abs(trained.bias - shipped.bias) > 0.501 * step + 1e-6 * np.abs(trained.bias) + 1e-9
    return [
        f"{what} of channels {np.flatnonzero(channels)[:8].tolist()} differ"
        for what, channels in (
            ("int8 weights", changed),
            ("weight scales", scaled),
            ("biases", biased),
        )
        if channels.any()
    ]


def _attribute_differences(trained: IntegerOperator, shipped: IntegerOperator) -> list[str]:
    texts = []
    if trained.relu != shipped.relu:
        texts.append(f"activation bound {shipped.relu}, trained {trained.relu}")
    for key in ("stride", "padding", "dilation", "groups", "kernel"):
        a, b = trained.attributes.get(key), shipped.attributes.get(key)
        if a != b:
            texts.append(f"{key} {b}, trained {a}")
    return texts
