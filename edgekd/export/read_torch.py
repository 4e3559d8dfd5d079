"""The trained side of the proof: a converted PT2E graph as an `IntegerGraph`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.fx import GraphModule, Interpreter, Node

from edgekd.errors import ProofError
from edgekd.export.integer_graph import (
    OUTSIDE,
    ZERO,
    Addresses,
    Grid,
    IntegerGraph,
    IntegerOperator,
    Move,
    Weight,
    each,
)
from edgekd.export.replay import Reading, flat, normalised, padded, reduced, windowed
from edgekd.nets.own import place_of

_ATEN = torch.ops.aten
_Q = torch.ops.quantized_decomposed

_KINDS: dict[Any, str] = {
    _ATEN.conv2d.default: "conv",
    _ATEN.linear.default: "linear",
    _ATEN.add.Tensor: "add",
    _ATEN.add_.Tensor: "add",
    _ATEN.sub.Tensor: "sub",
    _ATEN.mul.Tensor: "mul",
    _ATEN.max_pool2d.default: "max_pool",
    _ATEN.avg_pool2d.default: "mean",
    _ATEN.adaptive_avg_pool2d.default: "mean",
    _ATEN.mean.dim: "mean",
    _ATEN.sigmoid.default: "sigmoid",
    _ATEN.tanh.default: "tanh",
    _ATEN.softmax.int: "softmax",
}
_PADS = {_ATEN.pad.default: 3, _ATEN.constant_pad_nd.default: 2}
"""Pads, and which argument the border's value is."""
_MOVES = {
    *_PADS,
    _ATEN.cat.default,
    _ATEN.chunk.default,
    _ATEN.clone.default,
    _ATEN.contiguous.default,
    _ATEN.dropout.default,
    _ATEN.flatten.using_ints,
    _ATEN.permute.default,
    _ATEN.reshape.default,
    _ATEN.select.int,
    _ATEN.slice.Tensor,
    _ATEN.split.Tensor,
    _ATEN.split_with_sizes.default,
    _ATEN.squeeze.dim,
    _ATEN.transpose.int,
    _ATEN.unsqueeze.default,
    _ATEN.upsample_nearest2d.default,
    _ATEN.upsample_nearest2d.vec,
    _ATEN.view.default,
}
_RELU: dict[Any, Callable[[Node], float]] = {
    _ATEN.relu.default: lambda _n: math.inf,
    _ATEN.relu_.default: lambda _n: math.inf,
    _ATEN.relu6.default: lambda _n: 6.0,
    _ATEN.hardtanh.default: lambda n: float(cast(float, n.args[2])),
    _ATEN.hardtanh_.default: lambda n: float(cast(float, n.args[2])),
}


def integer_graph(graph: GraphModule) -> IntegerGraph:
    """Returns the operators between the quantize operators of a converted graph.

    Args:
        graph: From `convert_pt2e` with folded weights.

    Raises:
        ProofError: An operator that the proof does not know stands between quantized tensors.
    """
    reader = _Reader(graph)
    for node in graph.graph.nodes:
        reader.read(node)
    (output,) = (n for n in graph.graph.nodes if n.op == "output")
    return IntegerGraph(
        "the trained graph",
        reader.input,
        reader.shapes[reader.input],
        reader.grids,
        tuple(reader.steps),
        tuple(reader.quantized(n) for n in cast(tuple[Node, ...], output.args[0])),
    )


class _Blank(Interpreter):
    """Runs the graph on one blank image and keeps every shape, and every value that is a number."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.found: dict[Node, Any] = {}
        (entry,) = (n for n in graph.graph.nodes if n.op == "placeholder")
        with torch.no_grad():
            self.run(torch.zeros(1, *(int(size) for size in entry.meta["val"].shape[1:])))

    def run_node(self, n: Node) -> Any:  # noqa: ANN401 - as torch declares it
        value = super().run_node(n)
        self.found[n] = tuple(value.shape) if isinstance(value, torch.Tensor) else value
        return value


class _Reader:
    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        self._found = _Blank(graph).found
        self._names: dict[Node, str] = {}
        self.input = ""
        self.grids: dict[str, Grid] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.steps: list[IntegerOperator | Move] = []

    def read(self, node: Node) -> None:
        """Adds what ``node`` does to quantized tensors, if it is not part of what follows."""
        if node.target == _Q.quantize_per_tensor.default:
            self._quantize(node)
        elif node.target == _Q.dequantize_per_tensor.default:
            self._names[node] = self._names[cast(Node, node.args[0])]
        elif (
            node.target in _MOVES
            and not isinstance(self._found[node], (list, tuple))
            or (node.target in _MOVES and all(isinstance(n, int) for n in self._found[node]))
        ):
            self._move(node, node, lambda results: results[0])

    def quantized(self, node: Node) -> str:
        """Returns the quantized tensor that a node stands for."""
        if node not in self._names:
            raise ProofError(
                f"{place_of(node)} stays in float: the proof knows no integer arithmetic for it"
            )
        return self._names[node]
