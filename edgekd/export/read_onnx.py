"""A QDQ ONNX file as an `IntegerGraph`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from edgekd.errors import ProofError
from edgekd.export.integer_graph import Grid, IntegerGraph, IntegerOperator, Weight
from edgekd.modelfile.onnx_graph import OnnxGraph, read_onnx

_KINDS = {
    "Conv": "conv",
    "Gemm": "linear",
    "MatMul": "linear",
    "Add": "add",
    "Mul": "mul",
    "Concat": "concat",
    "MaxPool": "max_pool",
    "AveragePool": "mean",
    "GlobalAveragePool": "mean",
    "ReduceMean": "mean",
    "Resize": "resize",
    "Sigmoid": "sigmoid",
}
_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


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
        self._grids: dict[str, Grid] = {}
        self._operators: list[IntegerOperator] = []
        self._same: dict[str, str] = {}
        self._input = ""
        self._floats: list[str] = []

    def graph(self) -> IntegerGraph:
        for node in self._source.nodes:
            if node.op_type == "QuantizeLinear":
                self._read(node)
        outputs = tuple(self._quantized(name) for name in self._source.outputs)
        return IntegerGraph(
            self._path.name,
            self._input,
            self._grids,
            tuple(self._operators),
            outputs,
            tuple(self._floats),
        )

    def _read(self, quantize: NodeProto) -> None:
        output, relu = quantize.output[0], None
        readers = self._source.consumers.get(output, [])
        if len(readers) == 1 and readers[0].op_type == "Max":
            # A ReLU on the integers themselves, whose zero is the zero point.
            output, relu = readers[0].output[0], math.inf
        grid = self._grid(quantize)
        self._grids[output] = grid
        source = self._source.producers.get(quantize.input[0])
        if source is None:
            self._input = output
            return
        if source.op_type == "DequantizeLinear" or source.op_type in _VIEWS:
            self._same[output] = self._quantized(quantize.input[0])
            return
        if source.op_type in ("Relu", "Clip"):
            relu = math.inf if source.op_type == "Relu" else self._upper(source)
            source = self._source.producers[source.input[0]]
        if source.op_type not in _KINDS:
            raise ProofError(f"{self._path.name}: the proof does not know {source.op_type}")
        kind = _KINDS[source.op_type]
        weighted = kind in ("conv", "linear")
        tensors = source.input[:1] if weighted or kind == "resize" else source.input
        inputs = [n for n in tensors if n and n not in self._source.constants]
        try:
            names = tuple(self._quantized(n) for n in inputs)
        except _FloatIslandError:
            self._floats.append(f"{source.op_type} {source.name}")
            return
        weight = self._weight(source) if weighted else None
        attributes = _attributes(source)
        self._operators.append(
            IntegerOperator(source.name, kind, names, output, grid, relu, weight, attributes)
        )

    def _quantized(self, name: str) -> str:
        node = self._source.producers.get(name)
        while node is not None and node.op_type in _VIEWS:
            node = self._source.producers.get(node.input[0])
        if node is None or node.op_type != "DequantizeLinear":
            raise _FloatIslandError(f"{self._path.name}: {name} is a float island")
        name = str(node.input[0])
        return self._same.get(name, name)

    def _grid(self, node: NodeProto) -> Grid:
        scale, zero_point = self._constant(node.input[1]), self._constant(node.input[2])
        shift = 128 if zero_point.dtype == np.uint8 else 0
        return Grid(float(scale), int(zero_point) - shift)

    def _weight(self, node: NodeProto) -> Weight:
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


class _FloatIslandError(ProofError):
    """A tensor that should be integer is not."""


def _attributes(node: NodeProto) -> dict[str, Any]:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type not in ("Conv", "MaxPool"):
        return {}
    top, left, bottom, right = values.get("pads", [0, 0, 0, 0])
    result: dict[str, Any] = {
        "stride": tuple(values.get("strides", [1, 1])),
        "padding": (left, right, top, bottom),
    }
    if node.op_type == "Conv":
        result["dilation"] = tuple(values.get("dilations", [1, 1]))
        result["groups"] = values.get("group", 1)
    else:
        result["kernel"] = tuple(values["kernel_shape"])
    return result
