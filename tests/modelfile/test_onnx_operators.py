from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.core.errors import ModelError
from edgekd.core.types import Format, Precision
from edgekd.modelfile.operators import OperatorKind
from edgekd.modelfile.read import read_operators


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    shape: tuple[object, ...] = (1, 3, 8, 8),
    output: str = "y",
    output_type: int = TensorProto.FLOAT,
    keep_shapes: bool = False,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, output_type, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.graph.output[0].CopyFrom(inferred.graph.output[0])
    onnx.save(inferred if keep_shapes else model, path)
    return path


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def pair(name: str, scale: str = "scale", zero: str = "zero") -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [f"{name}_dq"]),
    ]


QUANTIZED = {
    "scale": np.array(0.1, np.float32),
    "zero": np.array(0, np.int8),
    "w_q": np.ones((4, 3, 3, 3), np.int8),
    "w_scale": np.full(4, 0.01, np.float32),
    "w_zero": np.zeros(4, np.int8),
    "b": np.zeros(4, np.float32),
}


def quantized_conv(output: str = "c") -> list[onnx.NodeProto]:
    return [
        helper.make_node("DequantizeLinear", ["w_q", "w_scale", "w_zero"], ["w"], axis=0),
        helper.make_node("Conv", ["x_dq", "w", "b"], [output], name="conv", pads=[1, 1, 1, 1]),
    ]


def test_macs_parameters_and_bytes_of_a_float_net(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4, group=4),
        helper.make_node("ConvTranspose", ["c2", "w3"], ["c3"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
    ]
    constants = {
        "w1": random(4, 3, 3, 3),
        "b1": random(4),
        "w2": random(4, 1, 3, 3),
        "w3": random(4, 5, 2, 2),
        "w4": random(7, 5),
        "b4": random(7),
    }
    model = read_operators(save(tmp_path / "net.onnx", nodes, constants))
    kinds = [operator.kind.value for operator in model.operators]
    assert kinds == ["conv", "depthwise-conv", "transposed-conv", "pool", "move", "fully-connected"]
    macs = [operator.macs for operator in model.operators]
    # Outputs: 4x4x4, 4x4x4, 5x8x8; the transposed convolution works once per input value.
    assert macs == [64 * 27, 64 * 9, 64 * 5 * 4, 0, 0, 7 * 5]
    assert model.macs == sum(macs)
    assert model.parameters == 108 + 4 + 36 + 80 + 35 + 7
    first = model.operators[0]
    assert (first.input_bytes, first.weight_bytes, first.output_bytes) == (768, 448, 256)
    assert model.format is Format.ONNX
    assert model.size_bytes == (tmp_path / "net.onnx").stat().st_size
    assert model.integer_mac_share == 0
    assert model.precision is Precision.FLOAT32


def test_quantized_convolution_counts_as_one_int8_operator(tmp_path: Path) -> None:
    nodes = [
        *pair("x"),
        *quantized_conv(),
        helper.make_node("Relu", ["c"], ["r"]),
        *pair("r"),
    ]
    path = save(tmp_path / "net.onnx", nodes, QUANTIZED, output="r_dq")
    quantize, conv, dequantize = read_operators(path).operators
    assert quantize.kind is OperatorKind.QUANTIZE
    assert dequantize.kind is OperatorKind.DEQUANTIZE
    assert conv.kind is OperatorKind.CONV
    assert conv.precision is Precision.INT8
    assert conv.macs == 4 * 64 * 27
    # Input and output a byte a value, weights a byte, the bias four.
    assert (conv.input_bytes, conv.output_bytes) == (192, 256)
    assert conv.weight_bytes == 108 + 16
    assert conv.parameters == 108 + 4
    assert read_operators(path).integer_mac_share == 1.0


def test_weights_quantized_inside_the_graph_are_constants(tmp_path: Path) -> None:
    nodes = [
        *pair("x"),
        helper.make_node("QuantizeLinear", ["wf", "w_scale", "w_zero"], ["w_i"], axis=0),
        helper.make_node("DequantizeLinear", ["w_i", "w_scale", "w_zero"], ["w"], axis=0),
        helper.make_node("Conv", ["x_dq", "w", "b"], ["c"], pads=[1] * 4),
        *pair("c"),
    ]
    constants = {name: value for name, value in QUANTIZED.items() if name != "w_q"}
    constants["wf"] = random(4, 3, 3, 3)
    model = read_operators(save(tmp_path / "net.onnx", nodes, constants, output="c_dq"))
    assert [operator.kind.value for operator in model.operators] == [
        "quantize",
        "conv",
        "dequantize",
    ]
    assert model.operators[1].weight_bytes == 108 + 16


def test_addition_is_integer_only_between_quantized_tensors(tmp_path: Path) -> None:
    def precision(nodes: list[onnx.NodeProto], output: str) -> Precision:
        path = save(tmp_path / "net.onnx", nodes, QUANTIZED, output=output)
        return next(
            item for item in read_operators(path).operators if item.native == "Add"
        ).precision

    both = [*pair("x"), helper.make_node("Add", ["x_dq", "x_dq"], ["a"])]
    assert precision([*both, *pair("a")], "a_dq") is Precision.INT8
    assert precision(both, "a") is Precision.FLOAT32
    one = [*pair("x"), helper.make_node("Add", ["x_dq", "x"], ["a"]), *pair("a")]
    assert precision(one, "a_dq") is Precision.FLOAT32


def test_weighted_operator_with_float_output_is_integer(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [*pair("x"), *quantized_conv("y")], QUANTIZED)
    conv = read_operators(path).operators[-1]
    assert conv.precision is Precision.INT8
    assert conv.output_bytes == 4 * 256


def test_branch_keeps_the_activation_apart(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Add", ["c", "r"], ["y"]),
    ]
    model = read_operators(save(tmp_path / "net.onnx", nodes, {"w": random(2, 3, 1, 1)}))
    assert [operator.native for operator in model.operators] == ["Conv", "Relu", "Add"]


def test_shape_arithmetic_and_constant_subgraphs_cost_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "rest": np.array([-1], np.int64),
        "w": random(192, 5),
    }
    model = read_operators(save(tmp_path / "net.onnx", nodes, constants, ("batch", 3, 8, 8)))
    assert [operator.native for operator in model.operators] == ["Reshape", "MatMul"]
    assert model.macs == 192 * 5
    assert model.operators[1].input_shapes == ((1, 192),)


def test_shared_weights_are_counted_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Conv", ["c", "w"], ["y"]),
    ]
    model = read_operators(save(tmp_path / "net.onnx", nodes, {"w": random(3, 3, 1, 1)}))
    assert model.parameters == 9
    assert [operator.weight_bytes for operator in model.operators] == [36, 36]


def test_half_precision_is_told_apart(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["h", "w"], ["y"]),
    ]
    constants = {"w": random(2, 3, 1, 1).astype(np.float16)}
    path = save(tmp_path / "net.onnx", nodes, constants, output_type=TensorProto.FLOAT16)
    assert read_operators(path).precision is Precision.FLOAT16


def conv_net(path: Path, **changes: object) -> Path:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Abs", ["c"], ["y"])]
    return save(path, nodes, {"w": random(64, 3, 3, 3)}, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [0, 4, 100, 3000, -1])
def test_truncated_file_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    path = conv_net(tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"net\.onnx"):
        read_operators(path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    for name, content in (("a.onnx", b"\x89PNG\r\n" * 99), ("b.onnx", b"hello " * 99)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            read_operators(tmp_path / name)
    with pytest.raises(ModelError, match=r"gone\.onnx: cannot be read"):
        read_operators(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match=r"\.onnx or \.tflite"):
        read_operators(tmp_path / "net.pt")


def test_weights_in_another_file_are_never_opened(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "net.onnx")
    model = onnx.load(path)
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../../../etc/passwd")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="'w' and 0 other tensors lie in other files"):
        read_operators(path)


def test_open_image_size_is_refused_and_open_batch_is_one(tmp_path: Path) -> None:
    for keep_shapes in (False, True):
        path = conv_net(tmp_path / "net.onnx", shape=("n", 3, 8, 8), keep_shapes=keep_shapes)
        model = read_operators(path)
        assert model.macs == 64 * 36 * 27
        assert model.operators[0].output_shapes == ((1, 64, 6, 6),)
    path = conv_net(tmp_path / "net.onnx", shape=(1, 3, "height", 8))
    with pytest.raises(ModelError, match=r"'x' has an open dimension 2 \(height\)"):
        read_operators(path)


def test_control_flow_is_refused(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    path = save(tmp_path / "net.onnx", [node], {"flag": np.array(True)})
    with pytest.raises(ModelError, match="operator If makes the cost depend on data"):
        read_operators(path)
