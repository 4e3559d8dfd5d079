"""The trained side of the proof: a converted PT2E graph as an `IntegerGraph`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.fx import GraphModule, Interpreter, Node

from edgekd.core.errors import ProofError
from edgekd.nets.aten import ENTRIES, targets
from edgekd.nets.custom import place_of
from edgekd.proof.arithmetic import InputView, flat, normalised, padded, reduced, windowed
from edgekd.proof.integer_graph import (
    OUTSIDE,
    ZERO,
    Addresses,
    DataMovement,
    IntegerGraph,
    IntegerOperator,
    QuantizationParameters,
    Weight,
    each,
)

_ATEN = torch.ops.aten
_Q = torch.ops.quantized_decomposed

_KINDS = {target: e.arithmetic for target, e in ENTRIES.items() if e.arithmetic}
_PADS = {_ATEN.pad.default: 3, _ATEN.constant_pad_nd.default: 2}
"""Pads, and which argument the border's value is."""
_MOVES = targets(lambda entry: entry.moves and not entry.splits)
_SPLITS = targets(lambda entry: entry.splits)
_RELU: dict[Any, Callable[[Node], float]] = {
    _ATEN.relu.default: lambda _n: math.inf,
    _ATEN.relu_.default: lambda _n: math.inf,
    _ATEN.relu6.default: lambda _n: 6.0,
    _ATEN.hardtanh.default: lambda n: float(cast(float, n.args[2])),
    _ATEN.hardtanh_.default: lambda n: float(cast(float, n.args[2])),
}


def integer_graph(graph: GraphModule) -> IntegerGraph:
    """Returns the operators of a converted graph: each ends where a value is rounded.

    A layer that is kept in float between two others is an operator, too, whose output is a float.

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
        self.grids: dict[str, QuantizationParameters] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.steps: list[IntegerOperator | DataMovement] = []

    def read(self, node: Node) -> None:
        """Adds what ``node`` does to quantized tensors, if it is not part of what follows."""
        if node.target == _Q.quantize_per_tensor.default:
            self._quantize(node)
        elif node.target == _Q.dequantize_per_tensor.default:
            self._names[node] = self._names[cast(Node, node.args[0])]
        elif node.target in _MOVES:
            self._move(node, node)
        elif node.target is operator.getitem and cast(Node, node.args[0]).target in _SPLITS:
            self._move(node, cast(Node, node.args[0]))

    def quantized(self, node: Node) -> str:
        """Returns the quantized tensor that a node stands for."""
        if node not in self._names:
            raise ProofError(f"{place_of(node)} stays in float, and the proof is for integers")
        return self._names[node]

    def _given(self, node: Node) -> str:
        """Returns the tensor that a node stands for; a float one is computed where it is needed."""
        if node not in self._names:
            self.steps.append(self._operator(node, node.name, None))
            self._names[node] = node.name
        return self._names[node]

    def _move(self, node: Node, mover: Node) -> None:
        tensors = _tensor_inputs(mover)
        names = tuple(self._names[n] for n in tensors if n in self._names)
        if len(names) < len(tensors):
            return
        if any(self.grids[name] != self.grids[names[0]] for name in names):
            raise ProofError(f"{place_of(mover)} joins tensors that have scales of their own")
        arguments = _with_border(mover)

        def apply(inputs: Sequence[Addresses]) -> Addresses:
            given = {
                n: torch.from_numpy(i.astype(np.float64))
                for n, i in zip(tensors, inputs, strict=True)
            }
            args, kwargs = torch.fx.node.map_arg(
                (arguments, mover.kwargs), lambda n: given[n] if n in given else self._found[n]
            )
            result = cast(Any, mover.target)(*args, **kwargs)
            if mover is not node:
                result = result[cast(int, node.args[1])]
            return cast(Addresses, result.numpy().astype(np.int32))

        self.steps.append(DataMovement(node.name, names, node.name, apply))
        self.grids[node.name] = self.grids[names[0]]
        self._names[node] = node.name

    def _quantize(self, quantize: Node) -> None:
        """Adds the operator whose result ``quantize`` rounds."""
        node = cast(Node, quantize.args[0])
        grid = QuantizationParameters(
            self._number(quantize.args[1]), int(self._number(quantize.args[2]))
        )
        if node in self._names and self.grids[self._names[node]] == grid:
            self._names[quantize] = self._names[node]
            return
        self.grids[quantize.name] = grid
        self._names[quantize] = quantize.name
        self.shapes[quantize.name] = self._found[quantize]
        if node.op == "placeholder":
            self.input = quantize.name
        else:
            self.steps.append(self._operator(node, quantize.name, grid))

    def _operator(
        self, node: Node, output: str, grid: QuantizationParameters | None
    ) -> IntegerOperator:
        shape = self._found[node]
        if node in self._names:
            inputs = (self._names[node],)
            return IntegerOperator(node.name, "requantize", inputs, output, grid, shape=shape)
        relu = None
        if node.target in _RELU:
            relu, node = _RELU[node.target](node), cast(Node, node.args[0])
        residual = ""
        if _KINDS.get(node.target) == "add":
            node, residual = self._unfused(node)
        if node.target not in _KINDS:
            raise ProofError(f"the proof does not know the operator {place_of(node)}")
        kind = _KINDS[node.target]
        return IntegerOperator(
            node.name,
            kind,
            tuple(self._given(n) for n in _tensor_inputs(node)),
            output,
            grid,
            relu,
            self._weight(node) if kind in ("conv", "linear") else None,
            _convolution(node) if kind == "conv" else {},
            shape,
            self._reading(node, kind),
            residual,
        )

    def _unfused(self, addition: Node) -> tuple[Node, str]:
        """Returns the convolution that an addition ends, and the quantized tensor that it adds.

        The addition itself and no tensor where every branch of it is quantized.
        """
        branches = _tensor_inputs(addition)
        floats = [b for b in branches if b not in self._names]
        if len(floats) != 1 or not self._is_integer_convolution(floats[0]):
            return addition, ""
        (other,) = (b for b in branches if b is not floats[0])
        return floats[0], self.quantized(other)

    def _is_integer_convolution(self, node: Node) -> bool:
        # One that is kept in float is an operator of its own, not part of an addition.
        return _KINDS.get(node.target) == "conv" and cast(Node, node.args[1]).op != "get_attr"

    def _reading(self, node: Node, kind: str) -> InputView:
        if kind == "conv":
            y, x = _pair(node, 4, 0)
            return padded((x, x, y, y))
        if kind == "linear":
            return flat(self._found[cast(Node, node.args[1])][1])
        if kind == "softmax":
            return normalised(cast(int, node.args[1]))
        if node.target == _ATEN.mean.dim:
            return reduced(cast(list[int], node.args[1]))
        if kind in ("max_pool", "mean"):
            return self._pool(node, kind)
        return each

    def _pool(self, node: Node, kind: str) -> InputView:
        size, made = self._found[cast(Node, node.args[0])][2:], self._found[node][2:]
        if node.target == _ATEN.adaptive_avg_pool2d.default:
            kernel = (size[0] // made[0], size[1] // made[1])
            return windowed(kernel, kernel, (0, 0, 0, 0))
        kernel = _pair(node, 1, 1)
        stride = _pair(node, 2, 0) if len(node.args) > 2 and node.args[2] else kernel
        y, x = _pair(node, 3, 0)
        # With ceil_mode the last window may reach over the border.
        bottom, right = (
            max(around, (count - 1) * step + reach - length - around)
            for around, count, step, reach, length in zip(
                (y, x), made, stride, kernel, size, strict=True
            )
        )
        counted = len(node.args) <= 5 or bool(node.args[5])
        fill = ZERO if kind == "mean" and counted else OUTSIDE
        if fill == ZERO and (bottom, right) != (y, x):
            raise ProofError(f"{place_of(node)}: an average over the border with ceil_mode")
        return windowed(kernel, stride, (x, right, y, bottom), fill=fill)

    def _weight(self, node: Node) -> Weight:
        stored = cast(Node, node.args[1])
        if stored.op == "get_attr":
            values = self._constant(stored).numpy()
            scales = np.ones(len(values))
        elif stored.target == _Q.dequantize_per_channel.default:
            values = self._constant(stored.args[0]).numpy()
            scales = self._constant(stored.args[1]).double().numpy()
        else:
            raise ProofError(f"{place_of(node)}: its weight is not quantized per channel")
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
    if _KINDS.get(node.target) in ("add", "mul"):
        return [n for n in node.args[:2] if isinstance(n, Node)]
    return [cast(Node, first)]


def _with_border(node: Node) -> list[Any]:
    """Returns the arguments of a move; a border of zeros becomes one of their address."""
    arguments = list(node.args)
    if node.target in _PADS:
        place = _PADS[node.target]
        value = arguments[place] if len(arguments) > place else None
        mode = arguments[2] if place == 3 and len(arguments) > 2 else "constant"
        if value or mode != "constant":
            raise ProofError(f"{place_of(node)}: the proof knows borders of zeros alone")
        arguments = [*arguments[:2], *(["constant"] if place == 3 else []), float(ZERO)]
    return arguments


def _convolution(node: Node) -> dict[str, Any]:
    groups = int(cast(int, node.args[6])) if len(node.args) > 6 else 1
    return {"stride": _pair(node, 3, 1), "dilation": _pair(node, 5, 1), "groups": groups}


def _pair(node: Node, index: int, default: int) -> tuple[int, int]:
    value: Any = node.args[index] if len(node.args) > index else default
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return (int(values[0]), int(values[-1]))
