"""Two integer graphs side by side: which operator is which, and where parameters differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import ProofError
from edgekd.proof.integer_graph import (
    Addresses,
    DataMovement,
    IntegerGraph,
    IntegerOperator,
    Ordered,
    QuantizationParameters,
    Weight,
)


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
    addresses = numbered(trained)
    waiting: dict[bytes, list[Ordered]] = {}
    for operator in trained.operators:
        added = addresses[operator.residual] if operator.residual else None
        key, order = _key(operator, [addresses[name] for name in operator.inputs], added)
        waiting.setdefault(key, []).append((operator, order))
    places = {shipped.input: _swapped(addresses[trained.input], trained, shipped)}
    pairs = []
    for step in shipped.steps:
        inputs = [_place(shipped, places, step, name) for name in step.inputs]
        if isinstance(step, DataMovement):
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
        made = addresses[found[0].output]
        places[step.output] = _partner_places(made, found, (step, order), trained, shipped)
    left = next((fits[0][0] for fits in waiting.values() if fits), None)
    if left is not None:
        raise ProofError(f"{shipped.source}: nothing there computes {left.kind} {left.name!r}")
    _check_outputs((trained, addresses), (shipped, places))
    return Alignment(tuple(pairs), addresses, places)


def numbered(graph: IntegerGraph) -> dict[str, Addresses]:
    """Returns the addresses of every tensor, those of each operator's output counted on."""
    total = int(np.prod(graph.input_shape))
    places = {graph.input: np.arange(total, dtype=np.int32).reshape(graph.input_shape)}
    for step in graph.steps:
        if isinstance(step, DataMovement):
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
    graph: IntegerGraph,
    places: Mapping[str, Addresses],
    step: IntegerOperator | DataMovement,
    name: str,
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


def _sorting(grid: QuantizationParameters | None) -> tuple[float, int]:
    return (grid.scale, grid.zero_point) if grid else (0.0, 0)


def _grid_differences(
    trained: QuantizationParameters | None, shipped: QuantizationParameters | None, which: str
) -> list[str]:
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
