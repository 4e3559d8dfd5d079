"""The trained side of the proof: a converted PT2E graph as an `IntegerGraph`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgekd.errors import ProofError
from edgekd.export.integer_graph import Grid, IntegerGraph, IntegerOperator, Weight

_ATEN = torch.ops.aten
_Q = torch.ops.quantized_decomposed

_KINDS: dict[Any, str] = {
    _ATEN.conv2d.default: "conv",
    _ATEN.linear.default: "linear",
    _ATEN.add.Tensor: "add",
    _ATEN.add_.Tensor: "add",
    _ATEN.mul.Tensor: "mul",
    _ATEN.cat.default: "concat",
    _ATEN.max_pool2d.default: "max_pool",
    _ATEN.avg_pool2d.default: "mean",
    _ATEN.adaptive_avg_pool2d.default: "mean",
    _ATEN.mean.dim: "mean",
    _ATEN.upsample_nearest2d.vec: "resize",
    _ATEN.sigmoid.default: "sigmoid",
}
_RESHAPES = {_ATEN.flatten.using_ints, _ATEN.reshape.default, _ATEN.view.default, _ATEN.squeeze.dim}
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
        if node.target == _Q.quantize_per_tensor.default:
            reader.read(node)
    (output,) = (n for n in graph.graph.nodes if n.op == "output")
    outputs = tuple(reader.quantized(n) for n in cast(tuple[Node, ...], output.args[0]))
    return IntegerGraph(
        "the trained graph", reader.input, reader.grids, tuple(reader.operators), outputs
    )


class _Reader:
    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        self.input = ""
        self.grids: dict[str, Grid] = {}
        self.operators: list[IntegerOperator] = []
        self._same: dict[str, str] = {}

    def read(self, quantize: Node) -> None:
        """Adds the operator whose result ``quantize`` rounds."""
        node = cast(Node, quantize.args[0])
        grid = Grid(self._number(quantize.args[1]), int(self._number(quantize.args[2])))
        self.grids[quantize.name] = grid
        if node.op == "placeholder":
            self.input = quantize.name
            return
        if node.target == _Q.dequantize_per_tensor.default or node.target in _RESHAPES:
            # Rounding a second time on the same grid, or another view of it: the same tensor.
            source = node if node.target not in _RESHAPES else cast(Node, node.args[0])
            self._same[quantize.name] = self.quantized(source)
            return
        relu = None
        if node.target in _RELU:
            relu, node = _RELU[node.target](node), cast(Node, node.args[0])
        if node.target not in _KINDS:
            raise ProofError(f"the proof does not know the operator {node.target} of {node.name}")
        kind = _KINDS[node.target]
        inputs = tuple(self.quantized(n) for n in _tensor_inputs(node))
        self.operators.append(
            IntegerOperator(
                node.name,
                kind,
                inputs,
                quantize.name,
                grid,
                relu,
                self._weight(node) if kind in ("conv", "linear") else None,
                _attributes(node, kind),
            )
        )

    def quantized(self, node: Node) -> str:
        """Returns the quantized tensor behind a dequantize operator."""
        while node.target in _RESHAPES:
            node = cast(Node, node.args[0])
        if node.target != _Q.dequantize_per_tensor.default:
            raise ProofError(f"{node.name} ({node.target}) is a float island in the trained graph")
        name = cast(Node, node.args[0]).name
        return self._same.get(name, name)

    def _weight(self, node: Node) -> Weight:
        dequantize = cast(Node, node.args[1])
        if dequantize.target != _Q.dequantize_per_channel.default:
            raise ProofError(f"{node.name}: its weight is not quantized per channel")
        values = self._constant(dequantize.args[0]).numpy()
        scales = self._constant(dequantize.args[1]).double().numpy()
        bias = node.args[2] if len(node.args) > 2 else None
        reals = np.zeros(len(scales))
        if bias is not None:
            reals = self._constant(bias).detach().double().numpy()
        return Weight(values, scales, reals, np.zeros(len(scales)))

    def _constant(self, node: object) -> torch.Tensor:
        value: Any = self._graph
        for part in cast(str, cast(Node, node).target).split("."):
            value = getattr(value, part)
        return cast(torch.Tensor, value).detach()

    def _number(self, value: object) -> float:
        return (
            float(self._constant(value)) if isinstance(value, Node) else float(cast(float, value))
        )


def _tensor_inputs(node: Node) -> list[Node]:
    first = node.args[0]
    if isinstance(first, (list, tuple)):
        return [cast(Node, n) for n in first]
    if _KINDS[node.target] in ("add", "mul"):
        return [n for n in node.args[:2] if isinstance(n, Node)]
    return [cast(Node, first)]


def _attributes(node: Node, kind: str) -> dict[str, Any]:
    def pair(index: int, default: int) -> tuple[int, int]:
        value: Any = node.args[index] if len(node.args) > index else default
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        return (int(values[0]), int(values[-1]))

    if kind == "conv":
        y, x = pair(4, 0)
        groups = int(cast(int, node.args[6])) if len(node.args) > 6 else 1
        return {
            "stride": pair(3, 1),
            "padding": (x, x, y, y),
            "dilation": pair(5, 1),
            "groups": groups,
        }
    if kind == "max_pool":
        y, x = pair(3, 0)
        return {"kernel": pair(1, 1), "stride": pair(2, 1), "padding": (x, x, y, y)}
    return {}
