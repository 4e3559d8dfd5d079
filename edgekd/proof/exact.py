"""The trained network in exact arithmetic: a second opinion where there is one runtime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.proof.alignment import as_nchw, numbered
from edgekd.proof.arithmetic import gather, replay
from edgekd.proof.integer_graph import IntegerGraph


def exact_outputs(graph: IntegerGraph, images: NDArray[np.int8]) -> list[NDArray[np.int8]]:
    """Returns the outputs ``(B, ...)`` of a trained graph, every operator from the one before it.

    Sums are exact and a value is rounded once, half to even, where its operator ends. No runtime
    does just that; like each of them it differs from the others by what is near a half.

    Args:
        graph: From `edgekd.proof.read_torch.integer_graph`.
        images: ``(B, C, H, W)`` on the input's scale.
    """
    places = numbered(graph)
    count = 1 + max(int(tensor.max(initial=-1)) for tensor in places.values())
    rows = [_exact(graph, places, count, image) for image in images]
    outputs = [np.stack([row[places[name]][0] for row in rows]) for name in graph.outputs]
    return [output.astype(np.int8) for output in outputs]


def _exact(
    graph: IntegerGraph, places: dict[str, NDArray[np.int32]], count: int, image: NDArray[np.int8]
) -> NDArray[np.generic]:
    """Returns every element of one image at its address."""
    values: NDArray[np.generic] = np.zeros(count, np.float64 if graph.kept else np.int8)
    values[places[graph.input].ravel()] = image.ravel()
    for operator in graph.operators:
        grids = [graph.grids.get(name) for name in operator.inputs]
        reads = [operator.reads(places[name]) for name in operator.inputs]
        inputs = [(gather(values, r, g), g) for r, g in zip(reads, grids, strict=True)]  # type: ignore[arg-type]
        added = None
        if operator.residual:
            grid = graph.grids.get(operator.residual)
            added = (gather(values, as_nchw(places[operator.residual], graph), grid), grid)  # type: ignore[arg-type]
        made = places[operator.output]
        made = as_nchw(made, graph) if operator.kind == "conv" else made
        values[made.ravel()] = np.asarray(replay(operator, inputs, added)).ravel()
    return values
