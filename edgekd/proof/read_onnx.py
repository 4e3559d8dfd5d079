"""A QDQ ONNX file as an `IntegerGraph`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from edgekd.core.errors import ProofError
from edgekd.modelfile.onnx_graph import OnnxGraph, read_onnx
from edgekd.modelfile.operator_table import BY_ONNX
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

_KINDS = {native: e.arithmetic for native, e in BY_ONNX.items() if e.arithmetic}
_MOVES = {native for native, entry in BY_ONNX.items() if entry.moves}
_BATCHED = 2
"""Axes before rows and columns."""


def onnx_integer_graph(path: Path) -> IntegerGraph:
    """Returns the integer graph; tensors go by the names of the QuantizeLinear outputs.

    Raises:
        ModelError: The file cannot be read.
        ProofError: It holds an operator that the proof does not know.
    """
    return _Reader(path, read_onnx(path)).graph()


class _Reader:
    def __init__(self, path: Path, source: OnnxGraph) -> None:
        self._path, self._source = path, source
        self._grids: dict[str, QuantizationParameters] = {}
        self._steps: list[IntegerOperator | DataMovement] = []
        self._names: dict[str, str] = {}
        self._input = ""
        self._floats: list[str] = []

    def graph(self) -> IntegerGraph:
        for node in self._source.nodes:
            self._read(node)
        return IntegerGraph(
            self._path.name,
            self._input,
            self._source.shapes[self._input],
            self._grids,
            tuple(self._steps),
            tuple(self._names.get(name, name) for name in self._source.outputs),
            tuple(self._floats),
        )

    def _read(self, node: NodeProto) -> None:
        if node.op_type == "QuantizeLinear":
            self._quantize(node)
        elif node.op_type == "DequantizeLinear" and node.input[0] in self._names:
            self._names[node.output[0]] = self._names[node.input[0]]
        elif node.op_type in _MOVES:
            self._move(node)

    def _move(self, node: NodeProto) -> None:
        """Adds a move between quantized tensors; one of constants alone is none."""
        tensors = [name for name in node.input if name and name not in self._source.constants]
        names = tuple(self._names[name] for name in tensors if name in self._names)
        if not names or len(names) < len(tensors):
            return
        apply = self._resize(node) if node.op_type == "Resize" else self._applied(node, tensors)
        for index, output in enumerate(node.output):
            self._steps.append(
                DataMovement(f"{node.name}:{index}", names, output, _item(apply, index))
            )
            self._names[output] = output
            self._grids[output] = self._grids[names[0]]

    def _quantize(self, quantize: NodeProto) -> None:
        output, relu = quantize.output[0], None
        self._names[output] = output
        readers = self._source.consumers.get(output, [])
        if len(readers) == 1 and _clips_at_zero(readers[0], quantize):
            # A ReLU on the integers themselves, whose zero is the zero point.
            output, relu = readers[0].output[0], math.inf
            self._names[output] = output
        name = quantize.input[0]
        grid = self._grid(quantize)
        self._grids[output] = grid
        source = self._source.producers.get(name)
        if source is None:
            self._input = output
        elif name in self._names and relu is None and self._grids[self._names[name]] == grid:
            # Rounding a second time on the same grid.
            self._steps.append(
                DataMovement(quantize.name, (self._names[name],), output, lambda inputs: inputs[0])
            )
        else:
            self._compute(source, name, output, grid, relu)

    def _compute(
        self,
        source: NodeProto,
        name: str,
        output: str,
        grid: QuantizationParameters | None,
        relu: float | None,
    ) -> None:
        """Adds the operator ``source``, which makes the float tensor ``name`` of ``output``."""
        shape = self._source.shapes[name]
        if name in self._names:
            inputs = (self._names[name],)
            self._steps.append(
                IntegerOperator(source.name, "requantize", inputs, output, grid, relu, shape=shape)
            )
            return
        if source.op_type in ("Relu", "Clip"):
            relu = math.inf if source.op_type == "Relu" else self._upper(source)
            source = self._source.producers[source.input[0]]
        residual = ""
        if source.op_type == "Add":
            source, residual = self._unfused(source)
        if source.op_type not in _KINDS:
            raise ProofError(f"{self._path.name}: the proof does not know {source.op_type}")
        kind = _KINDS[source.op_type]
        weighted = kind in ("conv", "linear")
        tensors = source.input[:1] if weighted else source.input
        active = [n for n in tensors if n and n not in self._source.constants]
        for name in active:
            self._require(name)
        self._steps.append(
            IntegerOperator(
                source.name,
                kind,
                tuple(self._names[n] for n in active),
                output,
                grid,
                relu,
                self._weight(source) if weighted else None,
                _convolution(source) if kind == "conv" else {},
                shape,
                self._reading(source, kind),
                residual,
            )
        )

    def _require(self, name: str) -> None:
        """Adds the layer that makes a float tensor, where it is not there yet."""
        source = self._source.producers.get(name)
        if name not in self._names and source is not None:
            self._compute(source, name, name, None, None)
            self._names[name] = name
            self._floats.append(f"{source.op_type} {source.name}")

    def _unfused(self, addition: NodeProto) -> tuple[NodeProto, str]:
        """Returns the convolution that an addition ends, and the quantized tensor that it adds.

        The addition itself and no tensor where every branch of it is quantized.
        """
        floats = [name for name in addition.input if name not in self._names]
        maker = self._source.producers.get(floats[0]) if len(floats) == 1 else None
        if maker is None or maker.op_type != "Conv" or maker.input[1] in self._source.initializers:
            return addition, ""
        (other,) = (name for name in addition.input if name != floats[0])
        return maker, self._names[other]

    def _reading(self, node: NodeProto, kind: str) -> InputView:
        values, shape = _attributes(node), self._source.shapes[node.input[0]]
        if kind == "conv":
            return padded(_border(values))
        if kind == "linear":
            return flat(shape[-1])
        if kind == "softmax":
            return normalised(values.get("axis", -1))
        if node.op_type == "GlobalAveragePool":
            return reduced(range(_BATCHED, len(shape)))
        if node.op_type == "ReduceMean":
            axes = self._constant(node.input[1]) if len(node.input) > 1 else values["axes"]
            return reduced([int(axis) for axis in axes])
        if kind in ("max_pool", "mean"):
            return self._pool(node, values, shape)
        return each

    def _pool(self, node: NodeProto, values: dict[str, Any], shape: tuple[int, ...]) -> InputView:
        kernel, stride = tuple(values["kernel_shape"]), tuple(values.get("strides", (1, 1)))
        left, right, top, bottom = _border(values)
        made = self._source.shapes[node.output[0]]
        # With ceil_mode the last window may reach over the border.
        bottom, right = (
            max(after, (made[axis] - 1) * step + reach - shape[axis] - before)
            for axis, step, reach, before, after in zip(
                (2, 3), stride, kernel, (top, left), (bottom, right), strict=True
            )
        )
        counted = node.op_type == "AveragePool" and values.get("count_include_pad", 0)
        fill = ZERO if counted else OUTSIDE
        return windowed(kernel, stride, (left, right, top, bottom), fill=fill)

    def _applied(self, node: NodeProto, tensors: Sequence[str]) -> Callable[..., list[Addresses]]:
        """Returns what the specification's own implementation of a node does to addresses."""
        from onnx.reference import ReferenceEvaluator

        moved = NodeProto()
        moved.CopyFrom(node)
        if node.op_type == "Pad":
            if not self._is_zero_border(node):
                raise ProofError(f"{self._path.name}: {node.name} has a border that is not zeros")
            del moved.input[2:]
            moved.input.append("border")
        opsets = {item.domain: item.version for item in self._source.model.opset_import}
        evaluator = ReferenceEvaluator(moved, opsets=opsets)
        fixed = {n: self._constant(n) for n in moved.input if n in self._source.constants}
        fixed["border"] = np.array(ZERO, np.int32)

        def apply(inputs: Sequence[Addresses]) -> list[Addresses]:
            given = fixed | dict(zip(tensors, inputs, strict=True))
            return [np.asarray(a) for a in evaluator.run(None, {n: given[n] for n in moved.input})]

        return apply

    def _is_zero_border(self, node: NodeProto) -> bool:
        if _attributes(node).get("mode", b"constant") != b"constant":
            return False
        if len(node.input) < 3 or not node.input[2]:
            return True
        value = self._constant(node.input[2])
        if value.dtype not in (np.int8, np.uint8):
            return float(value) == 0
        shift = 128 if value.dtype == np.uint8 else 0
        return int(value) - shift == self._grids[self._names[node.input[0]]].zero_point

    def _resize(self, node: NodeProto) -> Callable[..., list[Addresses]]:
        """Returns a nearest resize to a whole multiple, where all ways of rounding agree."""
        before, after = (self._source.shapes[n] for n in (node.input[0], node.output[0]))
        whole = all(large % small == 0 for small, large in zip(before, after, strict=True))
        if not whole or _attributes(node).get("mode", b"nearest") != b"nearest":
            raise ProofError(
                f"{self._path.name}: {node.name} resizes {before} to {after}; the proof knows the "
                "nearest neighbour at a whole multiple"
            )

        def apply(inputs: Sequence[Addresses]) -> list[Addresses]:
            places = inputs[0]
            for axis, (small, large) in enumerate(zip(before, after, strict=True)):
                places = places.repeat(large // small, axis)
            return [places]

        return apply

    def _grid(self, node: NodeProto) -> QuantizationParameters:
        scale, zero_point = self._constant(node.input[1]), self._constant(node.input[2])
        shift = 128 if zero_point.dtype == np.uint8 else 0
        return QuantizationParameters(float(scale), int(zero_point) - shift)

    def _weight(self, node: NodeProto) -> Weight:
        if node.input[1] in self._source.initializers:
            return self._float_weight(node)
        dequantize = self._source.producers.get(node.input[1])
        transpose = False
        if dequantize is not None and dequantize.op_type == "Transpose":
            transpose, dequantize = True, self._source.producers.get(dequantize.input[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            raise ProofError(f"{self._path.name}: the weight of {node.name} is not quantized")
        values = self._constant(dequantize.input[0])
        if node.op_type == "MatMul" and not transpose:
            values = values.T
        scales = np.atleast_1d(self._constant(dequantize.input[1]).astype(np.float64))
        channels = len(values)
        bias = self._bias(node, channels)
        return Weight(values, np.broadcast_to(scales, (channels,)), bias, np.zeros(channels))

    def _float_weight(self, node: NodeProto) -> Weight:
        values = self._constant(node.input[1])
        turned = node.op_type == "Gemm" and bool(_attributes(node).get("transB", 0))
        if node.op_type != "Conv" and not turned:
            values = values.T
        channels = len(values)
        ones, zeros = np.ones(channels), np.zeros(channels)
        return Weight(np.ascontiguousarray(values), ones, self._bias(node, channels), zeros)

    def _bias(self, node: NodeProto, channels: int) -> NDArray[np.float64]:
        if len(node.input) > 2:
            return self._constant(node.input[2]).astype(np.float64)
        return np.zeros(channels)

    def _constant(self, name: str) -> NDArray[Any]:
        value = self._source.value(name)
        if value is None:
            raise ProofError(f"{self._path.name}: {name} is not a constant")
        return value

    def _upper(self, clip: NodeProto) -> float:
        return float(self._constant(clip.input[2]))


def _item(
    apply: Callable[..., list[Addresses]], index: int
) -> Callable[[Sequence[Addresses]], Addresses]:
    return lambda inputs: apply(inputs)[index]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _border(values: dict[str, Any]) -> tuple[int, int, int, int]:
    top, left, bottom, right = values.get("pads", [0, 0, 0, 0])
    return (left, right, top, bottom)


def _clips_at_zero(reader: NodeProto, quantize: NodeProto) -> bool:
    """Whether a reader of a quantized tensor takes its zero point as the least value."""
    at_least = reader.op_type == "Clip" and len(reader.input) == 2
    return at_least and reader.input[1] == quantize.input[2]


def _convolution(node: NodeProto) -> dict[str, Any]:
    values = _attributes(node)
    return {
        "stride": tuple(values.get("strides", [1, 1])),
        "dilation": tuple(values.get("dilations", [1, 1])),
        "groups": values.get("group", 1),
    }
