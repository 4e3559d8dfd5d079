"""What an ONNX file must keep to on every board, as rules over its graph."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from edgekd.config.device import Device
from edgekd.core.host import cpu_flags, is_x86
from edgekd.modelfile.onnx_graph import OnnxGraph
from edgekd.rules.onnx_queries import (
    OWN_DOMAIN,
    WEIGHTED,
    activation_conversions,
    attribute,
    stored_zero_points,
)
from edgekd.rules.rule import Breach, Rule

_ONNX = "ONNX operator specification"
_PROFILE = "the device's profile"
_SATURATION = "ONNX Runtime documentation, quantization, U8S8 on x86"
_REPRODUCIBLE = "files must not differ between the machines they were made on"
_TRTEXEC = "trtexec and ONNX Runtime, which separate names by colon and comma"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
# A Unix path of two levels or more at the start of a word, a Windows path, or a traceback's line.
_LOCAL_PATH = re.compile(r"(?:^|[\s\"'=(])/[\w.-]+/[\w.-]+|\b[A-Za-z]:\\\w|File \"")
_PER_TENSOR_ALLOWED = ("Gemm", "MatMul")
_TYPE_NAMES = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8"}


def own_domain(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that are not ONNX's own: they run where somebody wrote them."""
    for node in graph.nodes:
        if node.domain not in OWN_DOMAIN:
            yield Breach(where=node.name, message=f"{node.domain}.{node.op_type} is not ONNX's own")


def float_island(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields operators that multiply in float in a file that is integer otherwise."""
    if not any(node.op_type == "QuantizeLinear" for node in graph.nodes):
        return
    for node in graph.nodes:
        maker = graph.producers.get(node.input[0]) if node.op_type in WEIGHTED else None
        dequantized = maker is not None and maker.op_type == "DequantizeLinear"
        if node.op_type in WEIGHTED and not dequantized:
            yield Breach(where=node.name, message=f"{node.op_type} reads a float tensor")


_SATURATES = "this CPU has no VNNI: sums of two saturate without session.x64quantprecision"


def saturating(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields products of uint8 and int8 that ONNX Runtime saturates on an x86 without VNNI."""
    if device.id != "host" or not is_x86() or cpu_flags() & {"avx512_vnni", "avx_vnni"}:
        return
    for node, dequantize in _quantized_weights(graph):
        reader = graph.producers.get(node.input[0])
        unsigned = reader is not None and graph.types.get(reader.input[0]) == TensorProto.UINT8
        weights = graph.value(dequantize.input[0])
        # Pairs of products are added in 16 bits: 255 times two weights must fit.
        if unsigned and weights is not None and 2 * 255 * int(np.abs(weights).max()) > 2**15 - 1:
            yield Breach(where=node.name, message=_SATURATES)


def opset(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields an operator set newer than the device's runtime parses."""
    highest = device.quantization.opset
    for item in graph.model.opset_import:
        if item.domain in OWN_DOMAIN and item.version > highest:
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
        values, zero_points = graph.value(name), stored_zero_points(graph, dequantize)
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
        along = attribute(dequantize, "axis", 1) % len(shape)
        if scales != shape[axis] or along != axis:
            yield Breach(
                where=name,
                message=f"{scales} scales along dimension {along}, expected {shape[axis]} along "
                f"dimension {axis}",
            )


def activation_type(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields Q and DQ nodes on activations of another integer type than the profile asks for."""
    expected = device.quantization.activation_dtype_onnx
    for node in activation_conversions(graph):
        quantized = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        found = graph.types.get(quantized, TensorProto.UNDEFINED)
        if _TYPE_NAMES.get(found) != expected:
            name = _TYPE_NAMES.get(found, TensorProto.DataType.Name(found).lower())
            yield Breach(where=node.name, message=f"activation is {name}, expected {expected}")


def activation_symmetry(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields zero points other than 0 where the profile wants activations symmetric."""
    if device.quantization.activation_symmetry == "affine":
        return
    for node in activation_conversions(graph):
        zero_points = stored_zero_points(graph, node)
        if zero_points.any():
            yield Breach(
                where=node.name, message=f"zero point {zero_points.flat[0]}; the runtime wants 0"
            )


def activation_scale(graph: OnnxGraph, device: Device) -> Iterator[Breach]:
    """Yields activations with more than one scale, or with one that is not positive."""
    for node in activation_conversions(graph):
        scales = graph.value(node.input[1])
        if scales is None or scales.size != 1:
            yield Breach(where=node.name, message="activation needs one constant scale")
        elif not (np.isfinite(scales) & (scales > 0)).all():
            yield Breach(where=node.name, message=f"scale {scales.flat[0]} is not positive")


def _quantized_weights(graph: OnnxGraph) -> Iterator[tuple[NodeProto, NodeProto]]:
    """Yields operators with quantized constant weights, and the nodes that dequantize those."""
    for node in graph.nodes:
        if node.op_type in WEIGHTED and node.input[1] in graph.constants:
            producer = graph.producers.get(node.input[1])
            if producer is not None and producer.op_type == "DequantizeLinear":
                yield node, producer


def _channel_axis(graph: OnnxGraph, node: NodeProto) -> int:
    if node.op_type == "MatMul":
        return len(graph.shapes[node.input[1]]) - 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else 0


ONNX_RULES: tuple[Rule[OnnxGraph], ...] = (
    Rule(id="onnx/opset", source=_PROFILE, check=opset),
    Rule(id="onnx/own-domain", source=_ONNX, check=own_domain),
    Rule(id="onnx/float-island", source=_PROFILE, check=float_island, level="advice"),
    Rule(id="onnxruntime/saturation", source=_SATURATION, check=saturating, level="advice"),
    Rule(id="onnx/names", source=_TRTEXEC, check=names, level="advice"),
    Rule(id="onnx/metadata", source=_REPRODUCIBLE, check=metadata),
    Rule(id="onnx/weights", source=_PROFILE, check=weight_form),
    Rule(id="onnx/weight-axis", source=_ONNX, check=weight_axis),
    Rule(id="onnx/activation-type", source=_PROFILE, check=activation_type),
    Rule(id="onnx/activation-symmetry", source=_PROFILE, check=activation_symmetry),
    Rule(id="onnx/activation-scale", source=_ONNX, check=activation_scale),
)
