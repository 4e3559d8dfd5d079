"""ONNX files: exported by torch, stripped to reproducible bytes, labelled with the contract."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.fx import GraphModule

from edgekd.errors import ExportError
from edgekd.modelfile.contract import KEY
from edgekd.modelfile.labels import ONNX_LABELS
from edgekd.quiet import quietly

INPUT_NAME = "images"


def onnx_model(
    graph: GraphModule, example: Tensor, output_names: Sequence[str], opset: int
) -> onnx.ModelProto:
    """Returns the graph as an ONNX model with a fixed batch of 1.

    Args:
        graph: Float, or with Q/DQ operators and folded weights.
        example: ``(1, C, H, W)``.
        output_names: In the order of the graph's outputs.
        opset: What the target's runtime parses.

    Raises:
        ExportError: torch cannot express an operator in ONNX.
    """
    try:
        with quietly():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=list(output_names),
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"torch.onnx.export failed: {error}") from error
    assert program is not None  # noqa: S101 - None only for the TorchScript exporter
    model = program.model_proto
    _strip(model)
    return model


def with_contract(model: onnx.ModelProto, contract: str, labels: str) -> bytes:
    """Returns the bytes of the model with the contract and the labels in its metadata."""
    labelled = onnx.ModelProto()
    labelled.CopyFrom(model)
    onnx.helper.set_model_props(labelled, {KEY: contract, ONNX_LABELS: labels})
    onnx.checker.check_model(labelled)
    blob: bytes = labelled.SerializeToString(deterministic=True)
    return blob


def as_uint8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the same scales with uint8 activations (zero point + 128).

    ONNX Runtime on x86 fuses this form completely; the int8 form it rewrites only in part. Where a
    ReLU cannot be the lower end of the integer range (symmetric scales), it becomes a maximum on
    the integers: otherwise ONNX Runtime computes that convolution in float.
    """
    host = onnx.ModelProto()
    host.CopyFrom(model)
    _relu_on_integers(host)
    constants = {t.name: t for t in host.graph.initializer}
    moved: dict[str, str] = {}
    for node in host.graph.node:
        weight = node.op_type == "DequantizeLinear" and node.input[0] in constants
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or weight:
            continue
        name = node.input[2]
        if name not in moved:
            zero_point = numpy_helper.to_array(constants[name]).astype(np.int16) + 128
            moved[name] = f"{name}_uint8"
            host.graph.initializer.append(
                numpy_helper.from_array(zero_point.astype(np.uint8), moved[name])
            )
        node.input[2] = moved[name]
    used = {name for node in host.graph.node for name in node.input}
    kept = [t for t in host.graph.initializer if t.name in used]
    del host.graph.initializer[:]
    host.graph.initializer.extend(kept)
    del host.graph.value_info[:]
    return host


def _relu_on_integers(model: onnx.ModelProto) -> None:
    """Moves every ReLU whose quantized zero is not the lowest integer behind its Q, in place."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    producers = {o: n for n in graph.node for o in n.output}
    zero = "integer_zero"
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        relu = producers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if relu is None or relu.op_type != "Relu":
            continue
        if int(numpy_helper.to_array(constants[node.input[2]])) == -128:
            continue
        node.input[0] = relu.input[0]
        output = node.output[0]
        node.output[0] = f"{output}_signed"
        name = f"{relu.name}_integer"
        nodes.append(onnx.helper.make_node("Max", [node.output[0], zero], [output], name))
    used = {name for node in nodes for name in node.input}
    nodes = [n for n in nodes if n.op_type != "Relu" or n.output[0] in used]
    if zero in used:
        graph.initializer.append(numpy_helper.from_array(np.array(128, np.uint8), zero))
    del graph.node[:]
    graph.node.extend(nodes)


def _strip(model: onnx.ModelProto) -> None:
    """Removes what makes files differ between machines or leaks local paths, in place."""
    model.producer_name, model.producer_version = "edgekd", ""
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "edgekd"
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in (model.graph.node, model.graph.initializer, model.graph.value_info):
        for item in part:
            item.doc_string = ""
            del item.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
