"""The trained network in exact arithmetic: a second opinion where there is one runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.proof.alignment import as_nchw, numbered
from edgekd.proof.arithmetic import gather, replay
from edgekd.proof.integer_graph import Addresses, IntegerGraph, IntegerOperator


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
    steps = [ReplayedOperator(operator, graph, places) for operator in graph.operators]
    rows = [np.zeros(count, np.float64 if graph.kept else np.int8) for _ in images]
    for values, image in zip(rows, images, strict=True):
        values[places[graph.input].ravel()] = image.ravel()
        for step in steps:
            values[step.made] = step.replay(values)
    outputs = [np.stack([row[places[name]][0] for row in rows]) for name in graph.outputs]
    return [output.astype(np.int8) for output in outputs]


class ReplayedOperator:
    """One operator of a graph, replayed from the values of an image, each at its address.

    Attributes:
        made: Addresses of its output, in the order in which `replay` returns it.
    """

    def __init__(
        self, operator: IntegerOperator, graph: IntegerGraph, places: Mapping[str, Addresses]
    ) -> None:
        self._operator = operator
        self._reads = [
            (operator.reads(places[name]), graph.grids.get(name)) for name in operator.inputs
        ]
        self._added = None
        if operator.residual:
            stored = as_nchw(places[operator.residual], graph)
            self._added = (stored, graph.grids.get(operator.residual))
        made = places[operator.output]
        self.made = (as_nchw(made, graph) if operator.kind == "conv" else made).ravel()

    def replay(self, values: NDArray[Any]) -> NDArray[Any]:
        """Returns its output ``(N,)`` for the values ``(M,)`` of one image."""
        inputs = [(gather(values, places, grid), grid) for places, grid in self._reads]
        added = (gather(values, *self._added), self._added[1]) if self._added else None
        return np.asarray(replay(self._operator, inputs, added)).ravel()
