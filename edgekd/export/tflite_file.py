"""TFLite files: converted by litert-torch, outputs named, labelled with the contract."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flatbuffers
import torch
from ai_edge_litert import schema_py_generated as schema
from torch.fx import GraphModule

from edgekd.core.errors import ExportError
from edgekd.core.quiet import quietly
from edgekd.modelfile.contract import KEY
from edgekd.nets.aten import ENTRIES
from edgekd.nets.custom import place_of
from edgekd.rules.tflite import FIXED_OUTPUT

INPUT_NAME = "images"


def tflite_model(
    graph: GraphModule,
    input_shape: tuple[int, int, int, int],
    output_names: Sequence[str],
    spatial: Sequence[int],
    *,
    integer: bool,
) -> bytes:
    """Returns the graph as a TFLite model: NHWC, batch 1, named outputs.

    Args:
        graph: Float, or with Q/DQ operators and *unfolded* weights, which the converter folds.
        input_shape: ``(1, C, H, W)``.
        output_names: In the order of the graph's outputs.
        spatial: Indices of the outputs that are NCHW in torch and NHWC in the file.
        integer: Whether the graph is quantized; then every tensor is int8, input and outputs too.

    Raises:
        ExportError: The converter refuses an operator, or an operator's output has another scale
            than the format fixes for it.
    """
    unfit = unfit_scale(graph) if integer else None
    if unfit:
        raise ExportError(
            f"{unfit}; end the network before it, at its raw outputs, or export ONNX alone "
            "(export.formats)"
        )
    batch, channels, height, width = input_shape
    example = torch.zeros(batch, height, width, channels)
    try:
        with quietly():
            litert_torch, config = _converter(integer)
            _settle_constants(graph)
            nhwc = litert_torch.to_channel_last_io(graph, args=[0], outputs=list(spatial))
            edge = litert_torch.convert(nhwc, (example,), quant_config=config)
            blob: bytes = edge.model_content()
    except Exception as error:
        raise ExportError(f"litert_torch.convert failed: {error}") from error
    return _rewrite(blob, lambda model: _name(model, output_names))


def unfit_scale(graph: GraphModule) -> str | None:
    """Returns which output is on another scale than the format fixes for its operator, if any is.

    Args:
        graph: With Q/DQ operators.
    """
    for node in graph.graph.nodes:
        entry = ENTRIES.get(node.target)
        native = entry.tflite[0] if entry and entry.scale == "fixed" else None
        for quantize in node.users if native else ():
            scale, zero_point = FIXED_OUTPUT[str(native)]
            if not math.isclose(quantize.args[1], scale) or quantize.args[2] != zero_point:
                return (
                    f"{place_of(node)}: its output has the scale {quantize.args[1]:.6g} around "
                    f"{quantize.args[2]}, but TFLite fixes {scale:g} around {zero_point}, which "
                    "the device's scheme does not give"
                )
    return None


def _converter(integer: bool) -> tuple[Any, Any]:
    """Returns the converter, imported late because it takes seconds, and its configuration."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import (
        PT2EQuantizer,
        get_symmetric_quantization_config,
    )
    from litert_torch.quantize.quant_config import QuantConfig

    # The quantizer given here annotates nothing: it only switches the converter to static mode.
    # Without it the file keeps Q/DQ pairs round every operator.
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config())
    return litert_torch, QuantConfig(pt2e_quantizer=quantizer) if integer else None


def with_contract(blob: bytes, contract: str) -> bytes:
    """Returns the model with the contract in its metadata table."""

    def add(model: Any) -> None:  # noqa: ANN401 - the generated schema is untyped
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = list(contract.encode())
        model.buffers.append(buffer)
        entry.name, entry.buffer = KEY, len(model.buffers) - 1
        model.metadata = [*(model.metadata or []), entry]

    return _rewrite(blob, add)


@torch.no_grad()
def _settle_constants(graph: GraphModule) -> None:
    """Works round two faults of litert-torch 0.10 in how it writes constants, in place.

    It knows a constant by the address of a contiguous copy, which for a channels-last weight is
    freed and reused, so that a weight may be written in place of another of its shape. And it
    writes a vector of equal values as one value, which the quantizer then puts on the first
    channel's scale alone; one bit of the last mantissa place keeps a bias from being such a vector.
    """
    for tensor in (*graph.parameters(), *graph.buffers()):
        tensor.data = tensor.data.contiguous()
        uniform = tensor.ndim == 1 and tensor.numel() > 1 and bool((tensor == tensor[0]).all())
        if uniform and tensor.is_floating_point() and tensor[0] != 0:
            tensor[0] = torch.nextafter(tensor[0], torch.zeros(()))


def _name(model: Any, output_names: Sequence[str]) -> None:  # noqa: ANN401 - as above
    """Names input and outputs, in the file's own order of outputs, and drops converter traces."""
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    graph.tensors[graph.inputs[0]].name = INPUT_NAME
    signature.inputs[0].name = INPUT_NAME
    by_tensor = {}
    for entry in signature.outputs:
        rank = int(entry.name.decode().rsplit("_", 1)[1])
        entry.name = output_names[rank]
        by_tensor[entry.tensorIndex] = (rank, output_names[rank])
        graph.tensors[entry.tensorIndex].name = output_names[rank]
    graph.outputs = sorted(by_tensor, key=lambda index: by_tensor[index][0])
    signature.outputs.sort(key=lambda entry: by_tensor[entry.tensorIndex][0])
    model.description = "edgekd"


def _rewrite(blob: bytes, change: Any) -> bytes:  # noqa: ANN401 - as above
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(blob, 0))
    change(model)
    builder = flatbuffers.Builder(len(blob))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
