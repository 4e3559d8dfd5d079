"""Questions about a QDQ ONNX graph that several families of rules ask."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edgekd.modelfile.onnx_graph import OnnxGraph

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
OWN_DOMAIN = ("", "ai.onnx")
"""Names of the domain of ONNX's own operators."""


def activation_conversions(graph: OnnxGraph) -> Iterator[NodeProto]:
    """Yields the Q and DQ nodes of activations."""
    for node in graph.nodes:
        if node.op_type in CONVERSIONS and node.input[0] not in graph.constants:
            yield node


def unlisted(graph: OnnxGraph, known: Collection[str]) -> Iterator[NodeProto]:
    """Yields ONNX's own operators that are not among the known ones."""
    for node in graph.nodes:
        if node.domain in OWN_DOMAIN and node.op_type not in known:
            yield node


def behind_pair(graph: OnnxGraph, name: str) -> NodeProto | None:
    """Returns the node that made a tensor before it was quantized and dequantized again."""
    dequantize = graph.producers.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    quantize = graph.producers.get(dequantize.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    return graph.producers.get(quantize.input[0])


def stored_zero_points(graph: OnnxGraph, node: NodeProto) -> NDArray[Any]:
    """Returns the zero points of a Q or DQ node; zeros where it carries none."""
    stored = graph.value(node.input[2]) if len(node.input) > 2 else None
    return np.zeros(1, np.int8) if stored is None else stored


def attribute(node: NodeProto, name: str, default: Any) -> Any:  # noqa: ANN401 - of any type
    """Returns an attribute of a node, text as `str`; the default where it carries none."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default
