"""What an ONNX file must keep to: on every board, and for TensorRT, as rules over its graph."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgekd.device import Device
from edgekd.export.rules import Breach, Rule
from edgekd.modelfile.onnx_graph import OnnxGraph

_ONNX = "ONNX operator specification"
_PROFILE = "the device's profile"
_REPRODUCIBLE = "files must not differ between the machines they were made on"
_TENSORRT = "TensorRT developer guide, explicit quantization"
_TRTEXEC = "trtexec and ONNX Runtime, which separate names by colon and comma"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
# A Unix path of two levels or more at the start of a word, a Windows path, or a traceback's line.
_LOCAL_PATH = re.compile(r"(?:^|[\s\"'=(])/[\w.-]+/[\w.-]+|\b[A-Za-z]:\\\w|File \"")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PER_TENSOR_ALLOWED = ("Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")
# Operators with int8 kernels, and those that move integers without looking at them.
_INTEGER_IN_TENSORRT = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "Add",
        "Mul",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "ReduceMean",
        "Concat",
        "Resize",
        "Relu",
        "LeakyRelu",
        "Clip",
        "Reshape",
        "Transpose",
        "Slice",
        "Split",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Pad",
        "Gather",
        "DepthToSpace",
        "SpaceToDepth",
        "Expand",
        "Tile",
        "Identity",
        "QuantizeLinear",
    }
)
_TYPE_NAMES = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8"}


def opset(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields an operator set newer than the device's runtime parses."""
    highest = device.quantization.opset
    for item in graph.model.opset_import:
        if item.domain in ("", "ai.onnx") and item.version > highest:
            yield Breach(
                where=graph.path.name,
                message=f"operator set {item.version}; {device.runtime.name} "
                f"{device.runtime.version} parses up to {highest}",
            )


def names(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields inputs and outputs whose names a command line or a C program cannot use."""
    for name in (*graph.inputs, *graph.outputs):
        if not _NAME.match(name):
            yield Breach(where=name, message=f"name {name!r} holds more than letters, digits, _ .")


def metadata(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields stack traces and local paths that an exporter left behind."""
    model = graph.model
    owners = [("model", model.doc_string, model.metadata_props)]
    owners += [("graph", model.graph.doc_string, model.graph.metadata_props)]
    owners += [(node.name, node.doc_string, node.metadata_props) for node in graph.nodes]
    for where, note, properties in owners:
        texts = [("doc_string", note), *((item.key, item.value) for item in properties)]
        for key, text in texts:
            if "stack_trace" in key or _LOCAL_PATH.search(text):
                yield Breach(where=where, message=f"{key} holds a stack trace or a local path")


def weight_form(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields quantized weights that are not int8 around 0, or below the lowest integer."""
    low = device.quantization.weight.low
    for _, dequantize in _quantized_weights(graph):
        name = dequantize.input[0]
        values, zero_points = graph.value(name), _zero_points(graph, dequantize)
        if graph.types.get(name) != TensorProto.INT8 or zero_points.any():
            yield Breach(where=name, message="weights are not int8 with the zero point 0")
        elif values is None:
            yield Breach(where=name, message="weights are stored in float before a QuantizeLinear")
        elif values.min() < low:
            count = int((values < low).sum())
            yield Breach(where=name, message=f"{count} weights are below {low}")


def weight_axis(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields quantized weights whose scales do not run along the output channels."""
    for node, dequantize in _quantized_weights(graph):
        name = dequantize.input[0]
        shape, axis = graph.shapes[name], _channel_axis(graph, node)
        scales = graph.elements(dequantize.input[1])
        if scales == 1 and (shape[axis] == 1 or node.op_type in _PER_TENSOR_ALLOWED):
            continue
        along = _attribute(dequantize, "axis", 1) % len(shape)
        if scales != shape[axis] or along != axis:
            yield Breach(
                where=name,
                message=f"{scales} scales along dimension {along}, expected {shape[axis]} along "
                f"dimension {axis}",
            )


def activation_type(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields Q and DQ nodes on activations of another integer type than the profile asks for."""
    expected = device.quantization.activation_dtype_onnx
    for node in _activation_conversions(graph):
        quantized = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        found = graph.types.get(quantized, TensorProto.UNDEFINED)
        if _TYPE_NAMES.get(found) != expected:
            name = _TYPE_NAMES.get(found, TensorProto.DataType.Name(found).lower())
            yield Breach(where=node.name, message=f"activation is {name}, expected {expected}")


def activation_symmetry(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields zero points other than 0 where the profile wants activations symmetric."""
    if device.quantization.activation_symmetry == "affine":
        return
    for node in _activation_conversions(graph):
        zero_points = _zero_points(graph, node)
        if zero_points.any():
            yield Breach(
                where=node.name, message=f"zero point {zero_points.flat[0]}; the runtime wants 0"
            )


def activation_scale(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields activations with more than one scale, or with one that is not positive."""
    for node in _activation_conversions(graph):
        scales = graph.value(node.input[1])
        if scales is None or scales.size != 1:
            yield Breach(where=node.name, message="activation needs one constant scale")
        elif not (np.isfinite(scales) & (scales > 0)).all():
            yield Breach(where=node.name, message=f"scale {scales.flat[0]} is not positive")


def quantized_bias(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields biases behind a DequantizeLinear; TensorRT wants them in float."""
    for node in graph.nodes:
        if node.op_type in _WEIGHTED and len(node.input) > 2:
            producer = graph.producers.get(node.input[2])
            if producer is not None and producer.op_type == "DequantizeLinear":
                yield Breach(where=node.input[2], message=f"bias of {node.name!r} is quantized")


def operator_support(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields operators behind a DequantizeLinear that TensorRT has no int8 kernel for."""
    for node in _activation_conversions(graph):
        for reader in graph.consumers.get(node.output[0], []):
            unsupported = reader.op_type not in _INTEGER_IN_TENSORRT
            if node.op_type == "DequantizeLinear" and unsupported:
                yield Breach(
                    where=reader.name,
                    message=f"{reader.op_type} has no int8 kernel; leave off Q/DQ",
                )


def activation_fusion(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields activations cut off from their convolution by a Q/DQ pair."""
    for node in graph.nodes:
        source = _behind_pair(graph, node.input[0]) if node.op_type in _ACTIVATIONS else None
        if source is not None and source.op_type in _WEIGHTED:
            yield Breach(
                where=node.name, message=f"Q/DQ between {source.name!r} and its {node.op_type}"
            )


def residual_fusion(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields additions that fuse with no convolution, since every branch carries a Q/DQ pair."""
    for node in graph.nodes:
        if node.op_type != "Add":
            continue
        makers = [graph.producers.get(name) for name in node.input]
        sources = [_behind_pair(graph, name) for name in node.input]
        convolutions = [item for item in sources if item is not None and item.op_type == "Conv"]
        if convolutions and all(item and item.op_type == "DequantizeLinear" for item in makers):
            yield Breach(
                where=node.name,
                message=f"drop the Q/DQ between {convolutions[0].name!r} and this Add to fuse them",
            )


def _quantized_weights(graph: OnnxGraph) -> Iterator[tuple[NodeProto, NodeProto]]:
    """Yields operators with quantized constant weights, and the nodes that dequantize those."""
    for node in graph.nodes:
        if node.op_type in _WEIGHTED and node.input[1] in graph.constants:
            producer = graph.producers.get(node.input[1])
            if producer is not None and producer.op_type == "DequantizeLinear":
                yield node, producer


def _activation_conversions(graph: OnnxGraph) -> Iterator[NodeProto]:
    for node in graph.nodes:
        conversion = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        if conversion and node.input[0] not in graph.constants:
            yield node


def _behind_pair(graph: OnnxGraph, name: str) -> NodeProto | None:
    """Returns the node that made a tensor before it was quantized and dequantized again."""
    dequantize = graph.producers.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    quantize = graph.producers.get(dequantize.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    return graph.producers.get(quantize.input[0])


def _zero_points(
    graph: OnnxGraph, node: NodeProto
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    stored = graph.value(node.input[2]) if len(node.input) > 2 else None
    return np.zeros(1, np.int8) if stored is None else stored


def _channel_axis(graph: OnnxGraph, node: NodeProto) -> int:
    if node.op_type == "MatMul":
        return len(graph.shapes[node.input[1]]) - 1
    if node.op_type == "Gemm":
        return 0 if _attribute(node, "transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else 0


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next(
        (int(helper.get_attribute_value(item)) for item in node.attribute if item.name == name),
        default,
    )


ONNX_RULES: tuple[Rule[OnnxGraph], ...] = (
    Rule(id="onnx/opset", source=_PROFILE, check=opset),
    Rule(id="onnx/names", source=_TRTEXEC, check=names, level="advice"),
    Rule(id="onnx/metadata", source=_REPRODUCIBLE, check=metadata),
    Rule(id="onnx/weights", source=_PROFILE, check=weight_form),
    Rule(id="onnx/weight-axis", source=_ONNX, check=weight_axis),
    Rule(id="onnx/activation-type", source=_PROFILE, check=activation_type),
    Rule(id="onnx/activation-symmetry", source=_PROFILE, check=activation_symmetry),
    Rule(id="onnx/activation-scale", source=_ONNX, check=activation_scale),
)
TENSORRT_RULES: tuple[Rule[OnnxGraph], ...] = (
    Rule(id="tensorrt/bias", source=_TENSORRT, check=quantized_bias),
    Rule(id="tensorrt/operators", source=_TENSORRT, check=operator_support, level="advice"),
    Rule(
        id="tensorrt/activation-fusion", source=_TENSORRT, check=activation_fusion, level="advice"
    ),
    Rule(id="tensorrt/residual-fusion", source=_TENSORRT, check=residual_fusion, level="advice"),
)
