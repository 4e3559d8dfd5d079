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

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import ProofError

IntArray = NDArray[np.int8]
Reals = NDArray[np.float64]
Addresses = NDArray[np.int32]

ZERO, OUTSIDE = -1, -2
"""Addresses in a border: a real zero, and no value at all (around a maximum)."""


@dataclass(frozen=True, slots=True)
class Grid:
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
    grid: Grid | None
    relu: float | None = None
    weight: Weight | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    reads: Callable[[Addresses], Addresses] = each
    residual: str = ""


Ordered = tuple[IntegerOperator, NDArray[np.intp]]
"""An operator, and where each of its sorted rows was."""


@dataclass(frozen=True, slots=True, eq=False)
class Move:
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
        grids: Grid of every quantized tensor.
        steps: In an order in which they can be executed.
        outputs: Quantized outputs, in order.
        floats: Operators that read or write float tensors: islands.
        channels_last: Whether input, outputs and what convolutions make are stored as NHWC.
    """

    source: str
    input: str
    input_shape: tuple[int, ...]
    grids: dict[str, Grid]
    steps: tuple[IntegerOperator | Move, ...]
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
    def moves(self) -> tuple[Move, ...]:
        """The steps that move."""
        return tuple(step for step in self.steps if isinstance(step, Move))


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Which trained operator each operator of a file computes, and where their values are.

    Attributes:
        pairs: Trained operator and its partner, in the file's order.
        trained: Addresses of every trained tensor, numbered from 0.
        shipped: Addresses of every tensor of the file, as stored, in the trained numbering.
    """

    pairs: tuple[tuple[IntegerOperator, IntegerOperator], ...]
    trained: Mapping[str, Addresses]
    shipped: Mapping[str, Addresses]

    def __iter__(self) -> Iterator[tuple[IntegerOperator, IntegerOperator]]:
        yield from self.pairs

    def __len__(self) -> int:
        return len(self.pairs)


def align(trained: IntegerGraph, shipped: IntegerGraph) -> Alignment:
    """Returns each trained operator with the shipped one that computes it.

    Follows the file from its input: an operator's partner has the same kind and reads the same
    elements in the same places. Where several do (two branches on one feature), the one whose
    weight is equal, else the first, is taken.

    Raises:
        ProofError: An operator has no partner, or one is left over, or an output is another.
    """
    numbered = _numbered(trained)
    waiting: dict[bytes, list[Ordered]] = {}
    for operator in trained.operators:
        added = numbered[operator.residual] if operator.residual else None
        key, order = _key(operator, [numbered[name] for name in operator.inputs], added)
        waiting.setdefault(key, []).append((operator, order))
    places = {shipped.input: _swapped(numbered[trained.input], trained, shipped)}
    pairs = []
    for step in shipped.steps:
        inputs = [_place(shipped, places, step, name) for name in step.inputs]
        if isinstance(step, Move):
            places[step.output] = step.apply(inputs)
            continue
        added = _place(shipped, places, step, step.residual) if step.residual else None
        key, order = _key(step, inputs, added)
        fits = waiting.get(key, [])
        if not fits:
            raise ProofError(
                f"{shipped.source}: {step.kind} {step.name!r} computes from "
                f"{', '.join(step.inputs)} what was never trained"
            )
        found = next((fit for fit in fits if _same_weight(fit[0].weight, step.weight)), fits[0])
        fits.remove(found)
        pairs.append((found[0], step))
        made = numbered[found[0].output]
        places[step.output] = _partner_places(made, found, (step, order), trained, shipped)
    left = next((fits[0][0] for fits in waiting.values() if fits), None)
    if left is not None:
        raise ProofError(f"{shipped.source}: nothing there computes {left.kind} {left.name!r}")
    _check_outputs((trained, numbered), (shipped, places))
    return Alignment(tuple(pairs), numbered, places)


def _numbered(graph: IntegerGraph) -> dict[str, Addresses]:
    """Returns the addresses of every tensor, those of each operator's output counted on."""
    total = int(np.prod(graph.input_shape))
    places = {graph.input: np.arange(total, dtype=np.int32).reshape(graph.input_shape)}
    for step in graph.steps:
        if isinstance(step, Move):
            places[step.output] = step.apply([places[name] for name in step.inputs])
            continue
        size = int(np.prod(step.shape))
        new = np.arange(total, total + size, dtype=np.int32)
        places[step.output] = new.reshape(step.shape)
        total += size
    return places


# How many leading values of a row have a part of their own; the others may be in any order.
_LEADING = {"softmax": 1}


def _key(
    operator: IntegerOperator, inputs: Sequence[Addresses], residual: Addresses | None
) -> tuple[bytes, NDArray[np.intp]]:
    """Returns what identifies the elements that an operator reads, and where its sorted rows were.

    The results of a row operator may be stored in any order, so its rows are sorted.
    """
    read = [operator.reads(places) for places in inputs]
    order = np.zeros(0, np.intp)
    if operator.weight is None:
        rows = _rows(read)
        rows[:, _LEADING.get(operator.kind, 0) :].sort(axis=1)
        order = np.lexsort(rows.T[::-1])
        read = [rows[order]]
    digest = hashlib.blake2b(f"{operator.kind} {read[0].shape} {operator.grid is None}".encode())
    digest.update(np.ascontiguousarray(read[0]).tobytes())
    if residual is not None:  # Both graphs that have one store it as NCHW.
        digest.update(b"residual" + np.ascontiguousarray(residual).tobytes())
    return digest.digest(), order


def _rows(read: Sequence[Addresses]) -> Addresses:
    """Returns ``(N, n)``: for every result the addresses that it is made from."""
    shape = np.broadcast_shapes(*(places.shape[:-1] for places in read))
    parts = [np.broadcast_to(places, (*shape, places.shape[-1])) for places in read]
    joined = np.concatenate(parts, axis=-1)
    return joined.reshape(-1, joined.shape[-1])


def _partner_places(
    made: Addresses,
    found: Ordered,
    partner: Ordered,
    trained: IntegerGraph,
    shipped: IntegerGraph,
) -> Addresses:
    """Returns the addresses of a trained operator's output as its partner stores it."""
    (operator, order), (step, partner_order) = found, partner
    if made.size != int(np.prod(step.shape)):
        raise ProofError(
            f"{shipped.source}: {step.kind} {step.name!r} makes {step.shape}, trained were "
            f"{operator.shape}"
        )
    if operator.kind == "conv":
        return _swapped(made, trained, shipped).reshape(step.shape)
    if operator.kind == "linear":
        return made.reshape(step.shape)
    places = np.empty(made.size, np.int32)
    places[partner_order] = made.ravel()[order]
    return places.reshape(step.shape)


def as_nchw(places: Addresses, graph: IntegerGraph) -> Addresses:
    """Returns an image that the graph stores as NCHW."""
    return places.transpose(0, 3, 1, 2) if graph.channels_last and places.ndim == 4 else places


def _swapped(places: Addresses, stored: IntegerGraph, wanted: IntegerGraph) -> Addresses:
    """Returns an image that one graph stores as another graph would."""
    image = as_nchw(places, stored)
    return image.transpose(0, 2, 3, 1) if wanted.channels_last and places.ndim == 4 else image


def _place(
    graph: IntegerGraph, places: Mapping[str, Addresses], step: IntegerOperator | Move, name: str
) -> Addresses:
    if name not in places:
        island = f": {graph.floats[0]} is a float island" if graph.floats else ""
        raise ProofError(f"{graph.source}: {step.name!r} reads {name!r}, not an integer{island}")
    return places[name]


def _check_outputs(
    trained: tuple[IntegerGraph, Mapping[str, Addresses]],
    shipped: tuple[IntegerGraph, Mapping[str, Addresses]],
) -> None:
    ours, theirs = (
        [as_nchw(places[name], graph) for name in graph.outputs if name in places]
        for graph, places in (trained, shipped)
    )
    if len(ours) != len(theirs) or not all(map(np.array_equal, ours, theirs)):
        raise ProofError(
            f"{shipped[0].source}: outputs {shipped[0].outputs} do not hold what the trained "
            f"{trained[0].outputs} hold, in that order"
        )


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
    trained: IntegerGraph, shipped: IntegerGraph, pairs: Alignment
) -> list[Difference]:
    """Returns every parameter of the file that differs from the trained one, in graph order.

    Integer weights and zero points must be equal, scales equal to float32 rounding, biases within
    half a step of the grid that the file keeps them on. A move must leave the grid as it is.
    """
    grids = trained.grids[trained.input], shipped.grids[shipped.input]
    found = [Difference("input", text) for text in _grid_differences(*grids, "output")]
    for operator, partner in pairs:
        texts = _grid_differences(operator.grid, partner.grid, "output")
        texts += _input_differences(operator, partner, trained, shipped)
        texts += _weight_differences(operator.weight, partner.weight)
        texts += _attribute_differences(operator, partner)
        found += [Difference(f"{operator.name} ({partner.name})", text) for text in texts]
    for ours, theirs in zip(trained.outputs, shipped.outputs, strict=True):
        texts = _grid_differences(trained.grids[ours], shipped.grids[theirs], "output")
        found += [Difference(f"output {theirs}", text) for text in texts]
    return found


def _input_differences(
    operator: IntegerOperator,
    partner: IntegerOperator,
    trained: IntegerGraph,
    shipped: IntegerGraph,
) -> list[str]:
    # Sorted, for the two inputs of an addition may be stored in either order.
    ours, theirs = (
        sorted((graph.grids.get(name) for name in names), key=_sorting)
        for graph, names in ((trained, operator.inputs), (shipped, partner.inputs))
    )
    pairs = zip(ours, theirs, strict=True)
    texts = [text for a, b in pairs for text in _grid_differences(a, b, "input")]
    if operator.residual:
        added = trained.grids[operator.residual], shipped.grids[partner.residual]
        texts += _grid_differences(*added, "residual")
    return texts


def _sorting(grid: Grid | None) -> tuple[float, int]:
    return (grid.scale, grid.zero_point) if grid else (0.0, 0)


def _grid_differences(trained: Grid | None, shipped: Grid | None, which: str) -> list[str]:
    if trained is None or shipped is None:
        kinds = ("float" if grid is None else "int8" for grid in (shipped, trained))
        return [] if trained is shipped else ["{} is {}, trained {}".format(which, *kinds)]
    texts = []
    if not np.isclose(trained.scale, shipped.scale, rtol=1e-6, atol=0):
        texts.append(f"{which} scale {shipped.scale:.9g}, trained {trained.scale:.9g}")
    if trained.zero_point != shipped.zero_point:
        texts.append(f"{which} zero point {shipped.zero_point}, trained {trained.zero_point}")
    return texts


def _weight_differences(trained: Weight | None, shipped: Weight | None) -> list[str]:
    if trained is None or shipped is None:
        return [] if trained is shipped else ["a weight on one side only"]
    if trained.values.shape != shipped.values.shape:
        return [f"weight shape {shipped.values.shape}, trained {trained.values.shape}"]
    if trained.is_float != shipped.is_float:
        return [f"weight of {shipped.values.dtype}, trained {trained.values.dtype}"]
    changed = (trained.values != shipped.values).reshape(len(trained.values), -1).any(axis=1)
    scaled = ~np.isclose(trained.scales, shipped.scales, rtol=1e-6, atol=0)
    step = shipped.bias_step
    biased = np.abs(trained.bias - shipped.bias) > 0.501 * step + 1e-6 * np.abs(trained.bias) + 1e-9
    found = {f"{trained.values.dtype} weights": changed, "weight scales": scaled, "biases": biased}
    return [
        f"{what} of channels {np.flatnonzero(channels)[:8].tolist()} differ"
        for what, channels in found.items()
        if channels.any()
    ]


def _attribute_differences(trained: IntegerOperator, shipped: IntegerOperator) -> list[str]:
    texts = []
    if trained.relu != shipped.relu:
        texts.append(f"activation bound {shipped.relu}, trained {trained.relu}")
    for key in ("stride", "dilation", "groups"):
        a, b = trained.attributes.get(key), shipped.attributes.get(key)
        if a != b:
            texts.append(f"{key} {b}, trained {a}")
    return texts
