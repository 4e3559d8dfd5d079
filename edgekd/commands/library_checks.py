"""The smallest programs that tell whether a library works here; each runs in a process of its own.

`edgekd doctor` starts them as ``python -m edgekd.commands.library_checks NAME``: an import that
crashes the interpreter, as compiled code does on a CPU that it was not built for, takes no more
with it than itself. What a probe returns is printed as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Facts = dict[str, Any]


def torch() -> Facts:
    """Trains one weight by one step; names the GPUs."""
    import torch

    weight = torch.ones(1, requires_grad=True)
    (2 * weight).backward()  # type: ignore[no-untyped-call]
    works = weight.grad is not None and float(weight.grad) == 2
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            gpus.append(f"{card.name}, {card.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        gpus.append("Apple GPU (MPS)")
    return {"works": works, "threads": torch.get_num_threads(), "gpus": gpus}


def onnxruntime() -> Facts:
    """Multiplies the largest uint8 by the largest int8 values, which saturates on x86 without VNNI.

    ``exact`` says whether the uint8 form of an int8 file computes here what a board computes.
    """
    import onnxruntime
    from onnx import TensorProto, helper

    depth = 64
    scalars = [
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("coarse", TensorProto.FLOAT, [], [255.0 * 127 * depth / 200]),
        helper.make_tensor("zero_u8", TensorProto.UINT8, [], [0]),
        helper.make_tensor("zero_i8", TensorProto.INT8, [], [0]),
        helper.make_tensor("w", TensorProto.INT8, [depth, 16], [127] * (16 * depth)),
    ]
    inputs = ["x", "one", "zero_u8", "w", "one", "zero_i8", "coarse", "zero_u8"]
    graph = helper.make_graph(
        [helper.make_node("QLinearMatMul", inputs, ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, depth])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 16])],
        scalars,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    (found,) = session.run(None, {"x": np.full((1, depth), 255, np.uint8)})
    return {
        "works": True,
        "exact": bool((found == 200).all()),
        "providers": onnxruntime.get_available_providers(),
    }


def ai_edge_litert() -> Facts:
    """Adds two int8 vectors, with the default delegate where it takes them."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    return _tflite(schema, Interpreter, OpResolverType.AUTO)


def tflite_runtime() -> Facts:
    """As `ai_edge_litert`, in the runtime that many boards still have."""
    from ai_edge_litert import schema_py_generated as schema
    from tflite_runtime.interpreter import Interpreter, OpResolverType

    return _tflite(schema, Interpreter, OpResolverType.AUTO)


def litert_torch() -> Facts:
    """Imports the converter to TFLite."""
    import litert_torch

    return {"works": callable(litert_torch.convert)}


def neural_compressor() -> Facts:
    """Imports the part that works on torch."""
    from neural_compressor.torch.quantization import autotune

    return {"works": callable(autotune)}


def torchvision() -> Facts:
    """Imports an optional source of teachers, which fails beside some builds of torch."""
    import torchvision

    return {"works": callable(torchvision.ops.nms)}


PROBES: dict[str, Callable[[], Facts]] = {
    "torch": torch,
    "onnxruntime": onnxruntime,
    "ai-edge-litert": ai_edge_litert,
    "tflite-runtime": tflite_runtime,
    "litert-torch": litert_torch,
    "neural-compressor": neural_compressor,
    "torchvision": torchvision,
}
"""By the name of the package that each tries."""


def _tflite(schema: Any, interpreter: Any, resolver: Any) -> Facts:  # noqa: ANN401 - no stubs
    """Returns whether 60 + 40 is 100 in int8, and whether the default delegate computed it."""
    net = interpreter(model_content=_addition(schema), experimental_op_resolver_type=resolver)
    net.allocate_tensors()
    for detail, value in zip(net.get_input_details(), (60, 40), strict=True):
        net.set_tensor(detail["index"], np.full((1, 16), value, np.int8))
    net.invoke()
    found = net.get_tensor(net.get_output_details()[0]["index"])
    operators = [item["op_name"] for item in net._get_ops_details()]
    return {"works": bool((found == 100).all()), "delegate": "DELEGATE" in operators}


def _addition(schema: Any) -> bytes:  # noqa: ANN401
    """Returns a TFLite file that adds two int8 vectors of one scale."""
    import flatbuffers

    tensors = []
    for name in ("a", "b", "sum"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, [1, 16], schema.TensorType.INT8
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [0.5], [0]
        tensors.append(tensor)
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 2
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0, 1], [2]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    sys.stdout.write(f"\n{json.dumps(PROBES[sys.argv[1]]())}\n")
