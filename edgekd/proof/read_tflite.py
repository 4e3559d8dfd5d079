"""A TFLite file as an `IntegerGraph`: NCHW weights, tensors as the file stores them (NHWC)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.core.errors import ProofError
from edgekd.modelfile.operator_table import BY_TFLITE
from edgekd.modelfile.tflite_graph import TfliteGraph, TfliteOperator, TfliteTensor, read_tflite
from edgekd.proof.arithmetic import (
    IMAGE_LAST,
    Border,
    InputView,
    flat,
    normalised,
    padded,
    reduced,
    windowed,
)
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

_KINDS = {native: e.arithmetic for native, e in BY_TFLITE.items() if e.arithmetic}
_RELU = {0: None, 1: math.inf, 3: 6.0}
_SAME = 0
_LOWEST = -128

Moving = Callable[[Sequence[Addresses]], Addresses]


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
        self._grids: dict[str, QuantizationParameters] = {}
        self._steps: list[IntegerOperator | DataMovement] = []
        self._floats: list[str] = []
        # By index: what a float tensor is called, and the operator that makes one.
        self._names: dict[int, str] = {}
        self._makers: dict[int, TfliteOperator] = {}

    def graph(self) -> IntegerGraph:
        source = self._source
        entry = source.inputs[0]
        if not entry.is_integer:
            raise ProofError(f"{self._path.name}: input {entry.name!r} is {entry.dtype}, not INT8")
        name = self._tensor(entry)
        for operator in source.operators:
            self._read(operator)
        return IntegerGraph(
            self._path.name,
            name,
            entry.shape,
            self._grids,
            tuple(self._steps),
            tuple(f"{tensor.index}" for tensor in source.outputs),
            tuple(self._floats),
            channels_last=True,
        )

    def _read(self, operator: TfliteOperator) -> None:
        active = _active(operator)
        if not all(t.is_integer for t in (*active, *operator.outputs)):
            self._read_float(operator, active)
        elif operator.native in _KINDS:
            self._compute(operator, operator.outputs[0])
        elif operator.native in _MOVES:
            self._move(operator, active)
        else:
            raise ProofError(f"{self._path.name}: the proof does not know {operator.native}")

    def _read_float(self, operator: TfliteOperator, active: Sequence[TfliteTensor]) -> None:
        """Takes note of part of a layer that is kept in float; only what is rounded is a step."""
        output = operator.outputs[0]
        self._floats.append(f"{operator.native} {output.index}")
        if operator.native == "DEQUANTIZE":
            self._names[output.index] = self._tensor(active[0])
        elif operator.native == "QUANTIZE" and active[0].index in self._makers:
            self._compute(self._makers[active[0].index], output)
        elif operator.native in _MOVES:
            self._move(operator, active)
        elif operator.native in _KINDS:
            self._makers[output.index] = operator

    def _move(self, operator: TfliteOperator, active: Sequence[TfliteTensor]) -> None:
        names = tuple(self._tensor(t) for t in active)
        for rank, output in enumerate(operator.outputs):
            apply = _MOVES[operator.native](operator, rank)
            name = f"{operator.native} {output.index}"
            made = self._named(output)
            self._steps.append(DataMovement(name, names, made, apply))
            if not output.is_integer and names[0] in self._grids:
                self._grids[made] = self._grids[names[0]]  # The integers that it was rounded to.

    def _compute(self, operator: TfliteOperator, output: TfliteTensor) -> None:
        """Adds an operator whose result is, or is rounded to, ``output``."""
        kind = _KINDS[operator.native]
        active = _active(operator)
        self._steps.append(
            IntegerOperator(
                f"{operator.native} {operator.outputs[0].index}",
                kind,
                tuple(self._tensor(tensor) for tensor in active),
                self._named(output),
                _grid(output) if output.is_integer else None,
                _RELU[getattr(operator.options, "fusedActivationFunction", 0)],
                _weight(operator) if kind in ("conv", "linear") else None,
                _convolution(operator) if kind == "conv" else {},
                output.shape,
                _reading(operator, kind),
            )
        )

    def _tensor(self, tensor: TfliteTensor) -> str:
        """Returns the name of a tensor that is read; a float one is computed where it is needed."""
        if tensor.index in self._names:
            return self._names[tensor.index]
        if tensor.index in self._makers:
            self._compute(self._makers[tensor.index], tensor)
        return self._named(tensor)

    def _named(self, tensor: TfliteTensor) -> str:
        name = self._names.setdefault(tensor.index, f"{tensor.index}")
        self.indices[name] = tensor.index
        if tensor.is_integer:
            self._grids[name] = _grid(tensor)
        return name


def _active(operator: TfliteOperator) -> list[TfliteTensor]:
    return [tensor for tensor in operator.inputs if tensor.data is None]


def _grid(tensor: TfliteTensor) -> QuantizationParameters:
    return QuantizationParameters(float(tensor.scales[0]), int(tensor.zero_points[0]))


def _weight(operator: TfliteOperator) -> Weight:
    data, kernel = operator.inputs[0], operator.inputs[1]
    values = kernel.data
    if values is None or values.dtype not in (np.int8, np.float32):
        raise ProofError(f"{operator.native} {kernel.name}: its weight is no int8 or float32")
    if operator.native == "DEPTHWISE_CONV_2D":
        values = values.transpose(3, 0, 1, 2)
    elif operator.native == "CONV_2D":
        values = values.transpose(0, 3, 1, 2)
    channels = len(values)
    bias = operator.inputs[2].data if len(operator.inputs) > 2 else None
    if values.dtype == np.float32:
        ones, zeros = np.ones(channels), np.zeros(channels)
        reals = zeros if bias is None else bias.astype(np.float64)
        return Weight(np.ascontiguousarray(values), ones, reals, zeros)
    scales = np.broadcast_to(kernel.scales.astype(np.float64), (channels,))
    step = scales * float(data.scales[0])
    reals = np.zeros(channels) if bias is None else bias.astype(np.float64) * step
    return Weight(np.ascontiguousarray(values), scales, reals, step)


def _convolution(operator: TfliteOperator) -> dict[str, Any]:
    channels = operator.inputs[0].shape[3]
    depthwise = operator.native == "DEPTHWISE_CONV_2D"
    return {
        "stride": _stride(operator),
        "dilation": _dilation(operator),
        "groups": channels if depthwise else channels // operator.inputs[1].shape[3],
    }


def _stride(operator: TfliteOperator) -> tuple[int, int]:
    return (int(operator.options.strideH), int(operator.options.strideW))


def _dilation(operator: TfliteOperator) -> tuple[int, int]:
    return (int(operator.options.dilationHFactor), int(operator.options.dilationWFactor))


def _reading(operator: TfliteOperator, kind: str) -> InputView:
    if kind == "conv":
        height, width = operator.inputs[1].shape[1:3]
        down, across = _dilation(operator)
        border = _border(operator, ((height - 1) * down + 1, (width - 1) * across + 1))
        return padded(border, IMAGE_LAST)
    if kind == "linear":
        return flat(operator.inputs[1].shape[1])
    if kind == "softmax":
        return normalised(-1)
    if operator.native == "MEAN":
        return reduced([int(axis) for axis in _constant(operator, 1).ravel()])
    if kind in ("max_pool", "mean"):
        kernel = (int(operator.options.filterHeight), int(operator.options.filterWidth))
        return windowed(kernel, _stride(operator), _border(operator, kernel), IMAGE_LAST)
    return each


def _border(operator: TfliteOperator, reach: tuple[int, int]) -> Border:
    """Returns the padding that an operator does itself, the larger half behind."""
    if operator.options.padding != _SAME:
        return (0, 0, 0, 0)
    shape = operator.inputs[0].shape[1:3]
    around: list[int] = []
    for size, length, step in zip(shape, reach, _stride(operator), strict=True):
        total = max((math.ceil(size / step) - 1) * step + length - size, 0)
        around += [total // 2, total - total // 2]
    top, bottom, left, right = around
    return (left, right, top, bottom)


def _constant(operator: TfliteOperator, index: int) -> Any:  # noqa: ANN401 - of any type
    data = operator.inputs[index].data
    if data is None:
        raise ProofError(
            f"{operator.native} {operator.outputs[0].name}: input {index} is not a constant"
        )
    return data


def _reshape(operator: TfliteOperator, rank: int) -> Moving:
    return lambda inputs: inputs[0].reshape(operator.outputs[rank].shape)


def _transpose(operator: TfliteOperator, rank: int) -> Moving:
    order = _constant(operator, 1).tolist()
    return lambda inputs: inputs[0].transpose(order)


def _pad(operator: TfliteOperator, rank: int) -> Moving:
    """Returns a pad by real zeros, or by the lowest integer, which only a maximum can stand."""
    zero = int(operator.outputs[0].zero_points[0]) if operator.outputs[0].is_integer else 0
    value = int(_constant(operator, 2)) if len(operator.inputs) > 2 else zero
    if value not in (zero, _LOWEST):
        raise ProofError(f"{operator.native} {operator.outputs[0].name}: a border of {value}")
    before_maximum = operator.native == "PADV2" and value == _LOWEST
    widths, fill = _constant(operator, 1).tolist(), OUTSIDE if before_maximum else ZERO
    return lambda inputs: np.pad(inputs[0], widths, constant_values=fill)


def _strided_slice(operator: TfliteOperator, rank: int) -> Moving:
    options, shape = operator.options, operator.inputs[0].shape
    begins, ends, steps = (_constant(operator, index).tolist() for index in (1, 2, 3))
    if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask or options.offset:
        raise ProofError(f"STRIDED_SLICE {operator.outputs[0].name}: masks beyond begin and end")
    cut = tuple(
        slice(
            None if options.beginMask >> axis & 1 else begins[axis],
            None if options.endMask >> axis & 1 else ends[axis],
            steps[axis],
        )
        for axis in range(len(shape))
    )
    return lambda inputs: inputs[0][cut]


def _slice(operator: TfliteOperator, rank: int) -> Moving:
    begins, shape = _constant(operator, 1).tolist(), operator.outputs[0].shape
    cut = tuple(slice(b, b + size) for b, size in zip(begins, shape, strict=True))
    return lambda inputs: inputs[0][cut]


def _split(operator: TfliteOperator, rank: int) -> Moving:
    axis = int(_constant(operator, 0 if operator.native == "SPLIT" else 2))
    ends = np.cumsum([output.shape[axis] for output in operator.outputs])[:-1]
    return lambda inputs: np.split(inputs[0], ends, axis)[rank]


def _gather(operator: TfliteOperator, rank: int) -> Moving:
    chosen, axis = _constant(operator, 1), operator.options.axis
    return lambda inputs: inputs[0].take(chosen, axis)


def _concatenation(operator: TfliteOperator, rank: int) -> Moving:
    return lambda inputs: np.concatenate(inputs, operator.options.axis)


def _pack(operator: TfliteOperator, rank: int) -> Moving:
    return lambda inputs: np.stack(inputs, operator.options.axis)


def _unpack(operator: TfliteOperator, rank: int) -> Moving:
    return lambda inputs: np.asarray(inputs[0].take(rank, operator.options.axis))


def _resize(operator: TfliteOperator, rank: int) -> Moving:
    """Returns a nearest resize to a whole multiple, where all ways of rounding agree."""
    before, after = operator.inputs[0].shape, operator.outputs[0].shape
    if any(large % small for small, large in zip(before, after, strict=True)):
        raise ProofError(
            f"{operator.native} {operator.outputs[0].name}: {before} to {after}; the proof knows "
            "whole multiples"
        )
    down, across = after[1] // before[1], after[2] // before[2]
    return lambda inputs: inputs[0].repeat(down, 1).repeat(across, 2)


_MOVES: dict[str, Callable[[TfliteOperator, int], Moving]] = {
    "CONCATENATION": _concatenation,
    "EXPAND_DIMS": _reshape,
    "GATHER": _gather,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
"""What an operator that moves does for its output of a given rank."""
