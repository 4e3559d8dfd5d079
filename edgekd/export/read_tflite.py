"""A TFLite file as an `IntegerGraph`: NCHW weights, padding folded into its operator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import ProofError
from edgekd.export.integer_graph import Grid, IntegerGraph, IntegerOperator, Weight
from edgekd.modelfile.tflite_graph import TfliteGraph, TfliteOperator, TfliteTensor, read_tflite

_KINDS = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "conv",
    "FULLY_CONNECTED": "linear",
    "ADD": "add",
    "MUL": "mul",
    "CONCATENATION": "concat",
    "MAX_POOL_2D": "max_pool",
    "AVERAGE_POOL_2D": "mean",
    "MEAN": "mean",
    "RESIZE_NEAREST_NEIGHBOR": "resize",
    "LOGISTIC": "sigmoid",
}
_PADS = ("PAD", "PADV2")
_VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_RELU = {0: None, 1: math.inf, 3: 6.0}
_SAME = 0

Padding = tuple[int, int, int, int]


def tflite_graph(path: Path) -> tuple[IntegerGraph, dict[str, int]]:
    """Returns the integer graph and the interpreter's index of every tensor in it.

    Raises:
        ModelError: The file cannot be read.
        ProofError: It holds an operator that the proof does not know.
    """
    reader = _Reader(path, read_tflite(path))
    return reader.graph(), reader.indices


class _Reader:
    def __init__(self, path: Path, source: TfliteGraph) -> None:
        self._path, self._source = path, source
        self.indices: dict[str, int] = {}
        self._grids: dict[str, Grid] = {}
        self._padded: dict[int, tuple[TfliteTensor, Padding]] = {}
        self._views: dict[int, TfliteTensor] = {}
        self._operators: list[IntegerOperator] = []
        self._floats: list[str] = []

    def graph(self) -> IntegerGraph:
        source = self._source
        for operator in source.operators:
            self._read(operator)
        return IntegerGraph(
            self._path.name,
            self._tensor(source.inputs[0]),
            self._grids,
            tuple(self._operators),
            tuple(self._tensor(self._views.get(t.index, t)) for t in source.outputs),
            tuple(self._floats),
        )

    def _read(self, operator: TfliteOperator) -> None:
        (output,) = operator.outputs
        active = [t for t in operator.inputs if t.data is None]
        if not output.is_integer or not all(t.is_integer for t in active):
            self._floats.append(f"{operator.native} {output.name}")
            return
        if operator.native in _PADS:
            self._padded[output.index] = (self._origin(active[0]), _pads(operator))
            return
        if operator.native in _VIEWS:
            self._views[output.index] = self._origin(active[0])
            return
        if operator.native not in _KINDS:
            raise ProofError(f"{self._path.name}: the proof does not know {operator.native}")
        kind = _KINDS[operator.native]
        inputs, before = [], (0, 0, 0, 0)
        for tensor in active:
            origin, pads = self._padded.get(tensor.index, (self._origin(tensor), (0, 0, 0, 0)))
            inputs.append(self._tensor(origin))
            before = pads
        relu = _RELU[getattr(operator.options, "fusedActivationFunction", 0)]
        self._operators.append(
            IntegerOperator(
                f"{operator.native} {output.index}",
                kind,
                tuple(inputs),
                self._tensor(output),
                _grid(output),
                relu,
                _weight(operator) if kind in ("conv", "linear") else None,
                _attributes(operator, before),
            )
        )

    def _origin(self, tensor: TfliteTensor) -> TfliteTensor:
        return self._views.get(tensor.index, tensor)

    def _tensor(self, tensor: TfliteTensor) -> str:
        name = f"{tensor.index}"
        self.indices[name] = tensor.index
        self._grids[name] = _grid(tensor)
        return name


def _grid(tensor: TfliteTensor) -> Grid:
    return Grid(float(tensor.scales[0]), int(tensor.zero_points[0]))


def _pads(operator: TfliteOperator) -> Padding:
    """Returns (left, right, top, bottom) of an NHWC pad."""
    table = operator.inputs[1].data
    if table is None:
        raise ProofError(f"{operator.native}: its padding is not a constant")
    return (int(table[2, 0]), int(table[2, 1]), int(table[1, 0]), int(table[1, 1]))


def _weight(operator: TfliteOperator) -> Weight:
    data, kernel = operator.inputs[0], operator.inputs[1]
    values = kernel.data
    if values is None or values.dtype != np.int8:
        raise ProofError(f"{operator.native} {kernel.name}: its weight is not a constant int8")
    if operator.native == "DEPTHWISE_CONV_2D":
        values = values.transpose(3, 0, 1, 2)
    elif operator.native == "CONV_2D":
        values = values.transpose(0, 3, 1, 2)
    channels = len(values)
    scales = np.broadcast_to(kernel.scales.astype(np.float64), (channels,))
    step = scales * float(data.scales[0])
    bias = operator.inputs[2].data if len(operator.inputs) > 2 else None
    reals = np.zeros(channels) if bias is None else bias.astype(np.float64) * step
    return Weight(np.ascontiguousarray(values), scales, reals, step)


def _attributes(operator: TfliteOperator, before: Padding) -> dict[str, Any]:
    options = operator.options
    if operator.native in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        depthwise = operator.native == "DEPTHWISE_CONV_2D"
        kernel = operator.inputs[1].shape[1:3]
        stride = (int(options.strideH), int(options.strideW))
        dilation = (int(options.dilationHFactor), int(options.dilationWFactor))
        reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        padding = _padding(operator, reach, stride, before)  # type: ignore[arg-type]
        channels = operator.inputs[0].shape[3]
        groups = channels if depthwise else channels // operator.inputs[1].shape[3]
        return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if operator.native == "MAX_POOL_2D":
        kernel = (int(options.filterHeight), int(options.filterWidth))
        stride = (int(options.strideH), int(options.strideW))
        padding = _padding(operator, kernel, stride, before)
        return {"kernel": kernel, "stride": stride, "padding": padding}
    return {}


def _padding(
    operator: TfliteOperator, kernel: tuple[int, int], stride: tuple[int, int], before: Padding
) -> Padding:
    """Returns the padding in all: what a PAD before did, and what the operator does itself."""
    if operator.options.padding != _SAME:
        return before
    shape = operator.inputs[0].shape[1:3]
    around: list[int] = []
    for size, reach, step in zip(shape, kernel, stride, strict=True):
        total = max((math.ceil(size / step) - 1) * step + reach - size, 0)
        around += [total // 2, total - total // 2]
    top, bottom, left, right = around
    return (before[0] + left, before[1] + right, before[2] + top, before[3] + bottom)
