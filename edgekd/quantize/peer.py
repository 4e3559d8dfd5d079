"""neural-compressor's own quantization, to compare ours with.

It knows one scheme, that of x86 servers (uint8 activations, what torch's Inductor fuses), and no
device profile: what comes of it runs in ONNX Runtime, and none of EdgeKD's proofs speak of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgekd.core.errors import ExportError
from edgekd.core.quiet import errors_only, quietly


@torch.no_grad()
def quantized_by_neural_compressor(
    graph: GraphModule, batches: Iterable[Tensor], example: Tensor
) -> GraphModule:
    """Returns a folded float graph with the Q/DQ operators that neural-compressor gives it.

    Args:
        graph: Returns the raw outputs alone; left as it is.
        batches: Real images ``(B, C, H, W)`` to calibrate on.
        example: ``(B, C, H, W)`` with B of at least 2.

    Raises:
        ExportError: It refuses the network.
    """
    images = list(batches)
    try:
        with errors_only("neural_compressor"), quietly():
            from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

            given = copy.deepcopy(graph)
            # What its own export leaves on a graph; this one has been exported already.
            given._exported, given.dynamic_shapes = True, None  # type: ignore[assignment]
            prepared = prepare(given, StaticQuantConfig(), example_inputs=(example,))
            for batch in images:
                prepared(batch)
            converted: GraphModule = convert(prepared)
    except Exception as error:
        raise ExportError(f"neural-compressor refuses the network: {error}") from error
    return converted
