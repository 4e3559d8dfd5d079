"""The operators of a TFLite file. Its converter has fused activations and folded batch norms."""

from __future__ import annotations

import math
from pathlib import Path

from edgekd.core.errors import ModelError
from edgekd.core.types import Precision
from edgekd.modelfile.operator_table import BY_TFLITE
from edgekd.modelfile.operators import Geometry, Operator, OperatorKind
from edgekd.modelfile.tflite_graph import (
    INTEGER_TYPES,
    TfliteOperator,
    TfliteTensor,
    read_tflite,
)

_CONTROL_FLOW = ("IF", "WHILE", "CALL_ONCE", "STABLEHLO_WHILE")
_WEIGHTED = (
    OperatorKind.CONV,
    OperatorKind.DEPTHWISE_CONV,
    OperatorKind.TRANSPOSED_CONV,
    OperatorKind.FULLY_CONNECTED,
)
_FILTER = 1  # Input that holds the weights, in every weighted operator of the schema.
_INDEX_TYPES = ("INT32", "INT64", "BOOL", "STRING")


def tflite_operators(path: Path) -> tuple[Operator, ...]:
    """Returns the operators of a TFLite file.

    Raises:
        ModelError: As ``read_tflite``, or the file holds control flow.
    """
    operators: list[Operator] = []
    counted: set[int] = set()
    constant: set[int] = set()
    for item in read_tflite(path).operators:
        if item.native in _CONTROL_FLOW:
            raise ModelError(
                f"{path}: operator {item.native} makes the cost depend on data; "
                "export a graph without control flow"
            )
        if all(tensor.data is not None or id(tensor) in constant for tensor in item.inputs):
            constant.update(map(id, item.outputs))  # Such as float16 weights being unpacked.
        else:
            try:
                operators.append(_operator(item, constant, counted))
            except IndexError as missing:
                raise ModelError(f"{path}: operator {item.native} lacks an input") from missing
    return tuple(operators)


def _operator(item: TfliteOperator, constant: set[int], counted: set[int]) -> Operator:
    entry = BY_TFLITE.get(item.native)
    kind = entry.cost if entry else OperatorKind.OTHER
    activations, weights = [], []
    for tensor in item.inputs:
        if tensor.data is None and id(tensor) not in constant:
            activations.append(tensor)
        elif tensor.dtype not in _INDEX_TYPES or tensor.scales.size:  # An int32 bias has scales.
            weights.append(tensor)
    fresh = [tensor for tensor in weights if id(tensor) not in counted]
    counted.update(map(id, fresh))
    return Operator(
        kind=kind,
        native=item.native,
        name=item.outputs[0].name if item.outputs else "",
        macs=_macs(kind, item),
        parameters=sum(tensor.elements for tensor in fresh),
        input_bytes=sum(tensor.size_bytes for tensor in activations),
        weight_bytes=sum(tensor.size_bytes for tensor in weights),
        output_bytes=sum(tensor.size_bytes for tensor in item.outputs),
        precision=_precision(kind, item, activations),
        input_shapes=tuple(tensor.shape for tensor in activations),
        output_shapes=tuple(tensor.shape for tensor in item.outputs),
        geometry=_geometry(kind, item),
    )


def _precision(
    kind: OperatorKind, item: TfliteOperator, activations: list[TfliteTensor]
) -> Precision:
    decisive = [item.inputs[_FILTER]] if kind in _WEIGHTED else item.outputs
    types = {tensor.dtype for tensor in (*activations, *decisive)} - set(_INDEX_TYPES)
    if types and types.issubset(INTEGER_TYPES):
        return Precision.INT8
    return Precision.FLOAT16 if types == {"FLOAT16"} else Precision.FLOAT32


def _macs(kind: OperatorKind, item: TfliteOperator) -> int:
    """Returns the multiply-accumulates; filters are stored output channel, height, width, input."""
    outputs = sum(tensor.elements for tensor in item.outputs)
    if kind is OperatorKind.MATMUL:
        return outputs * item.inputs[0].shape[-1]
    if kind not in _WEIGHTED:
        return 0
    filters = item.inputs[_FILTER].shape
    if kind is OperatorKind.DEPTHWISE_CONV:
        return outputs * math.prod(filters[1:3])
    if kind is OperatorKind.TRANSPOSED_CONV:
        return item.inputs[2].elements * math.prod(filters[:3])
    if item.native == "CONV_3D":  # Depth, height, width, input channel, output channel.
        return outputs * math.prod(filters[:-1])
    return outputs * math.prod(filters[1:])


def _geometry(kind: OperatorKind, item: TfliteOperator) -> Geometry | None:
    """Returns the shape of a multiplication; images are stored height, width, channels."""
    if kind in (OperatorKind.FULLY_CONNECTED, OperatorKind.MATMUL):
        depth, outputs = item.inputs[0].shape[-1:], item.outputs[0].shape[-1:]
        rows = item.outputs[0].elements // max(1, math.prod(outputs))
        if kind is OperatorKind.FULLY_CONNECTED:
            depth = item.inputs[_FILTER].shape[-1:]
        return Geometry(inputs=math.prod(depth), outputs=math.prod(outputs), height=rows, width=1)
    if kind not in _WEIGHTED or item.native == "CONV_3D":
        return None
    transposed = kind is OperatorKind.TRANSPOSED_CONV
    source, target = item.inputs[2 if transposed else 0].shape, item.outputs[0].shape
    filters = item.inputs[_FILTER].shape
    if len(source) != len(target) or len(target) != len(filters) or len(filters) != 4:
        return None
    small = source if transposed else target
    return Geometry(
        inputs=source[3],
        outputs=target[3],
        height=small[1],
        width=small[2],
        kernel=(filters[1], filters[2]),
        stride=max(1, getattr(item.options, "strideH", 1)),
        # A filter that reads fewer channels than there are is one of several groups.
        groups=source[3]
        if kind is OperatorKind.DEPTHWISE_CONV
        else max(1, source[3] // max(1, filters[3])),
    )
