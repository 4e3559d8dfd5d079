"""What a runtime has at every quantized tensor, taken from the file as shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekd.core.types import Arithmetic
from edgekd.modelfile.onnx_graph import load_onnx
from edgekd.modelfile.runner import session_options

Integers = NDArray[Any]
"""int8, or float32 of a layer that is kept in float."""


def tflite_intermediates(
    path: Path, indices: Mapping[str, int], images: NDArray[np.int8]
) -> dict[str, Integers]:
    """Returns every tensor, ``(B, *shape)``, int8 or float, as LiteRT's reference kernels have it.

    Args:
        path: The int8 file.
        indices: Tensor name to the interpreter's index.
        images: ``(B, H, W, C)`` int8 inputs.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    rows: dict[str, list[Integers]] = {name: [] for name in indices}
    for image in images:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        for name, index in indices.items():
            rows[name].append(interpreter.get_tensor(index))
    return {name: np.stack(values) for name, values in rows.items()}


def onnx_intermediates(
    path: Path,
    names: Sequence[str],
    floats: Sequence[str],
    images: NDArray[np.float32],
    arithmetic: Arithmetic,
) -> dict[str, Integers]:
    """Returns every named tensor that the file quantizes, ``(B, *shape)``, as int8, and floats.

    The tensors are made outputs of a copy in memory, for ONNX Runtime.

    Args:
        path: The int8 (or uint8) file.
        names: Quantized tensors; those that stay float between two moves are left out.
        floats: Tensors of layers that are kept in float.
        images: ``(B, C, H, W)`` float inputs.
        arithmetic: That in which the file is exact.
    """
    model = load_onnx(path)
    integer = {n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    names = [name for name in names if name in integer] + list(floats)
    # The types of the added outputs are for ONNX Runtime to infer.
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    runs = run_in_memory(model, names, images, arithmetic)
    return {
        name: _as_int8(np.stack([run[rank] for run in runs])) for rank, name in enumerate(names)
    }


def run_in_memory(
    model: onnx.ModelProto,
    names: Sequence[str] | None,
    images: NDArray[np.float32],
    arithmetic: Arithmetic = "any",
) -> list[list[NDArray[Any]]]:
    """Returns what ONNX Runtime makes of each image.

    Args:
        model: One input.
        names: Outputs wanted; None for all, in the graph's order.
        images: ``(B, C, H, W)``.
        arithmetic: Of quantized operators.
    """
    import onnxruntime

    options = session_options(arithmetic)
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = session.get_inputs()[0].name
    return [session.run(names, {feed: image[None]}) for image in images]


def _as_int8(values: Integers) -> Integers:
    if values.dtype == np.uint8:
        return (values.astype(np.int16) - 128).astype(np.int8)
    return values if values.dtype == np.float32 else values.astype(np.int8)
