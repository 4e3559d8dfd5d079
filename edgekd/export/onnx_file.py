"""ONNX files: exported by torch, stripped to reproducible bytes, labelled with the contract."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.fx import GraphModule

from edgekd.core.errors import ExportError
from edgekd.core.quiet import quietly
from edgekd.modelfile.contract import KEY
from edgekd.modelfile.labels import ONNX_LABELS

INPUT_NAME = "images"

_OLDEST_EXPORTED = 18
"""torch's exporter writes no older operator set, and does not say so."""
_AXES_AS_INPUT = 18
_ONLY_CHOICE = {("Resize", "keep_aspect_ratio_policy"): b"stretch", ("Resize", "antialias"): 0}
"""What operators did before they could be told to, by attribute."""

# Which input holds an activation's zero point; a clip from below is a ReLU on the integers.
_ZERO_POINT = {"QuantizeLinear": 2, "DequantizeLinear": 2, "Clip": 1, "Pad": 2}


def onnx_model(
    graph: nn.Module, example: Tensor, output_names: Sequence[str], opset: int
) -> onnx.ModelProto:
    """Returns the graph as an ONNX model with a fixed batch of 1.

    Args:
        graph: Float, half precision, or with Q/DQ operators and folded weights.
        example: ``(1, C, H, W)``.
        output_names: In the order of the graph's outputs.
        opset: What the target's runtime parses.

    Raises:
        ExportError: torch cannot express an operator in ONNX, or not in that operator set.
    """
    try:
        with quietly():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=max(opset, _OLDEST_EXPORTED),
                input_names=[INPUT_NAME],
                output_names=list(output_names),
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"torch.onnx.export failed: {error}") from error
    assert program is not None  # noqa: S101 - None only for the TorchScript exporter
    model = program.model_proto
    _strip(model)
    _pool_globally(model)
    if any(zero_point.any() for zero_point in _zero_points(model)):
        # TensorRT takes symmetric activations alone, so that this file is for ONNX Runtime.
        _relu_on_integers(model)
        _pad_on_integers(model)
    if opset < _OLDEST_EXPORTED:
        _in_opset(model, opset)
    return model


def half_precision(graph: GraphModule) -> nn.Module:
    """Returns a copy of a float graph that computes in float16 between float32 in- and outputs."""
    with quietly():  # Copying an exported graph warns about torch's own code.
        return _Half(graph)


class _Half(nn.Module):
    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.net = copy.deepcopy(graph).half()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.float() for output in self.net(x.half()))


def _in_opset(model: onnx.ModelProto, opset: int) -> None:
    """Writes the model in an older operator set, in place.

    What EdgeKD writes means the same in every operator set from 13 on, but for the axes of
    reductions, which moved from an attribute to an input, and for choices that are spelt out
    where an older set knew no other; ONNX's own checker says whether that is all.
    """
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type.startswith("Reduce") and len(node.input) > 1 and opset < _AXES_AS_INPUT:
            axes = numpy_helper.to_array(constants[node.input.pop()])
            node.attribute.append(onnx.helper.make_attribute("axes", axes.tolist()))
        needless = [
            a
            for a in node.attribute
            if _ONLY_CHOICE.get((node.op_type, a.name)) == onnx.helper.get_attribute_value(a)
        ]
        for item in needless:
            node.attribute.remove(item)
    for item in model.opset_import:
        if item.domain in ("", "ai.onnx"):
            item.version = opset
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"the network cannot be written in ONNX operator set {opset}, the newest that the "
            f"target parses: {error}"
        ) from error


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

    ONNX Runtime on x86 fuses this form completely; the int8 form it rewrites only in part.
    """
    host = onnx.ModelProto()
    host.CopyFrom(model)
    _relu_on_integers(host)
    _pad_on_integers(host)
    _share_no_weight(host)
    constants = {t.name: t for t in host.graph.initializer}
    moved: dict[str, str] = {}
    for node in host.graph.node:
        weight = node.op_type == "DequantizeLinear" and node.input[0] in constants
        place = _ZERO_POINT.get(node.op_type)
        if place is None or weight:
            continue
        name = node.input[place]
        if name not in moved:
            zero_point = numpy_helper.to_array(constants[name]).astype(np.int16) + 128
            moved[name] = f"{name}_uint8"
            host.graph.initializer.append(
                numpy_helper.from_array(zero_point.astype(np.uint8), moved[name])
            )
        node.input[place] = moved[name]
    used = {name for node in host.graph.node for name in node.input}
    kept = [t for t in host.graph.initializer if t.name in used]
    del host.graph.initializer[:]
    host.graph.initializer.extend(kept)
    del host.graph.value_info[:]
    return host


def _share_no_weight(model: onnx.ModelProto) -> None:
    """Gives every reader of an int8 weight a weight and a zero point of its own, in place.

    For ``session.x64quantprecision``: ONNX Runtime 1.32 makes uint8 weights of the int8 ones then,
    and fails where two operators share a weight or a zero point.
    """
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    readers = defaultdict(list)
    for node in graph.node:
        for place, name in enumerate(node.input):
            readers[name].append((node, place))
    nodes: list[onnx.NodeProto] = []
    seen: Counter[str] = Counter()
    for node in graph.node:
        weight = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is None or weight.data_type != onnx.TensorProto.INT8:
            nodes.append(node)
            continue
        for reader, place in readers[node.output[0]]:
            seen[weight.name] += 1
            end = "" if seen[weight.name] == 1 else f"_{seen[weight.name]}"
            own = onnx.NodeProto()
            own.CopyFrom(node)
            own.name, own.output[0] = f"{node.name}{end}", f"{node.output[0]}{end}"
            reader.input[place] = own.output[0]
            shape = numpy_helper.to_array(constants[node.input[1]]).shape
            shared = constants[node.input[2]] if len(node.input) > 2 else None
            zero = np.zeros(shape, np.int8) if shared is None else numpy_helper.to_array(shared)
            values = {f"{weight.name}{end}_zero_point": zero}
            if end:
                values[f"{weight.name}{end}"] = numpy_helper.to_array(weight)
            graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in values.items())
            scale = node.input[1]
            own.input[:] = [f"{weight.name}{end}", scale, f"{weight.name}{end}_zero_point"]
            nodes.append(own)
    del graph.node[:]
    graph.node.extend(nodes)


def _relu_on_integers(model: onnx.ModelProto) -> None:
    """Moves every ReLU whose quantized zero is not the lowest integer behind its Q, in place.

    Such a ReLU shares a scale with values below zero, or its scale is symmetric. It becomes a
    clip at the zero point: otherwise ONNX Runtime computes its convolution in float. Not a maximum,
    which ONNX Runtime before 1.24 has for no 8-bit integers.
    """
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    producers = {o: n for n in graph.node for o in n.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        relu = producers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if relu is None or relu.op_type != "Relu":
            continue
        zero_point = node.input[2]
        if int(numpy_helper.to_array(constants[zero_point])) == -128:
            continue
        node.input[0] = relu.input[0]
        output = node.output[0]
        node.output[0] = f"{output}_signed"
        name = f"{relu.name}_integer"
        nodes.append(onnx.helper.make_node("Clip", [node.output[0], zero_point], [output], name))
    used = {name for node in nodes for name in node.input}
    nodes = [n for n in nodes if n.op_type != "Relu" or n.output[0] in used]
    del graph.node[:]
    graph.node.extend(nodes)


def _pad_on_integers(model: onnx.ModelProto) -> None:
    """Takes every pad out of its Q/DQ pair, in place: ONNX Runtime has no fusion for it.

    A border of zeros is one of zero points, and nothing has to be rounded.
    """
    graph = model.graph
    producers = {o: n for n in graph.node for o in n.output}
    replaced = []
    for quantize in graph.node:
        pad = producers.get(quantize.input[0]) if quantize.op_type == "QuantizeLinear" else None
        if pad is None or pad.op_type != "Pad":
            continue
        del pad.input[2:]
        pad.input[0] = producers[pad.input[0]].input[0]
        pad.input.append(quantize.input[2])
        pad.output[0] = quantize.output[0]
        replaced.append(quantize)
    for quantize in replaced:
        graph.node.remove(quantize)


def _pool_globally(model: onnx.ModelProto) -> None:
    """Writes every quantized mean over an image as the pool that runtimes fuse, in place."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    readers = {i: n for n in graph.node for i in n.input}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        quantize = readers.get(node.output[0])
        if node.op_type != "ReduceMean" or quantize is None or quantize.op_type != "QuantizeLinear":
            continue
        axes = numpy_helper.to_array(constants[node.input[1]])
        if sorted(axes.tolist()) not in ([2, 3], [-2, -1]):
            continue
        kept = any(a.name == "keepdims" and a.i for a in node.attribute)
        grid = list(quantize.input[1:])
        pooled, name = f"{node.output[0]}_pooled", node.input[1]
        node.op_type = "GlobalAveragePool"
        del node.attribute[:], node.input[1:]
        if not kept:
            result, node.output[0] = node.output[0], pooled
            make = onnx.helper.make_node
            nodes.append(make("QuantizeLinear", [pooled, *grid], [f"{pooled}_q"], f"{node.name}_q"))
            nodes.append(
                make(
                    "DequantizeLinear", [f"{pooled}_q", *grid], [f"{pooled}_dq"], f"{node.name}_dq"
                )
            )
            nodes.append(make("Squeeze", [f"{pooled}_dq", name], [result], f"{node.name}_flat"))
    del graph.node[:]
    graph.node.extend(nodes)


def _zero_points(model: onnx.ModelProto) -> Iterator[NDArray[np.generic]]:
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            yield numpy_helper.to_array(constants[node.input[2]])


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
