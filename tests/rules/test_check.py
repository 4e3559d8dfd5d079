from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgekd.cli import main
from edgekd.config.device import Device, load_device
from edgekd.core.errors import ModelError
from edgekd.modelfile.onnx_graph import read_onnx
from edgekd.rules import onnx as onnx_rules
from edgekd.rules.check import check_conformance, every_rule
from edgekd.rules.rule import Finding
from edgekd.rules.tensorrt import one_type

BOARD = load_device("raspberry-pi")
JETSON = load_device("jetson")


def rules(findings: list[Finding]) -> list[str]:
    return [finding.rule for finding in findings]


# ONNX: x -> Q/DQ -> conv -> ReLU -> Q/DQ -> add with x -> Q/DQ -> y


def onnx_parts() -> dict[str, Any]:
    return {
        "constants": {
            "s": np.array(0.1, np.float32),
            "z": np.array(0, np.int8),
            "w_q": np.full((3, 3, 1, 1), -127, np.int8),
            "w_s": np.full(3, 0.01, np.float32),
            "w_z": np.zeros(3, np.int8),
            "b": np.zeros(3, np.float32),
        },
        "nodes": [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x_q"], "q_x"),
            helper.make_node("DequantizeLinear", ["x_q", "s", "z"], ["x_d"], "d_x"),
            helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w"], "d_w", axis=0),
            helper.make_node("Conv", ["x_d", "w", "b"], ["c"], "conv"),
            helper.make_node("Relu", ["c"], ["r"], "relu"),
            helper.make_node("Add", ["r", "x_d"], ["a"], "add"),
            helper.make_node("QuantizeLinear", ["a", "s", "z"], ["a_q"], "q_a"),
            helper.make_node("DequantizeLinear", ["a_q", "s", "z"], ["y"], "d_a"),
        ],
        "opset": 20,
    }


def onnx_file(path: Path, parts: dict[str, Any]) -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 3, 4, 4)) for n in "xy")
    constants = [numpy_helper.from_array(value, n) for n, value in parts["constants"].items()]
    graph = helper.make_graph(parts["nodes"], "net", [x], [y], constants)
    opsets = [helper.make_opsetid("", parts["opset"])]
    opsets += [helper.make_opsetid(n.domain, 1) for n in parts["nodes"] if n.domain]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def replaced(node: onnx.NodeProto, places: dict[int, str]) -> None:
    for place, name in places.items():
        node.input[place] = name


def uint8_activations(parts: dict[str, Any]) -> None:
    parts["constants"]["z"] = np.array(0, np.uint8)


def affine_activations(parts: dict[str, Any]) -> None:
    parts["constants"]["z"] = np.array(-3, np.int8)


def missing_zero_points(parts: dict[str, Any]) -> None:
    for node in parts["nodes"]:
        if node.input[-1] == "z":
            del node.input[-1]


def zero_scale(parts: dict[str, Any]) -> None:
    parts["constants"]["s"] = np.array(0, np.float32)


def per_tensor_weights(parts: dict[str, Any]) -> None:
    parts["constants"] |= {"w_s": np.array(0.01, np.float32), "w_z": np.array(0, np.int8)}


def wrong_axis(parts: dict[str, Any]) -> None:
    parts["nodes"][2].attribute[0].i = 1


def weight_below_range(parts: dict[str, Any]) -> None:
    parts["constants"]["w_q"][0, 0] = -128


def weight_zero_point(parts: dict[str, Any]) -> None:
    parts["constants"]["w_z"][1] = 1


def float_weights(parts: dict[str, Any]) -> None:
    parts["constants"]["w_f"] = np.ones((3, 3, 1, 1), np.float32)
    del parts["constants"]["w_q"]
    node = helper.make_node("QuantizeLinear", ["w_f", "w_s", "w_z"], ["w_q"], axis=0)
    parts["nodes"].insert(2, node)


def quantized_bias(parts: dict[str, Any]) -> None:
    parts["constants"]["b_q"] = np.zeros(3, np.int32)
    del parts["constants"]["b"]
    parts["nodes"].insert(3, helper.make_node("DequantizeLinear", ["b_q", "w_s"], ["b"], axis=0))


def new_opset(parts: dict[str, Any]) -> None:
    parts["opset"] = 21


def stack_trace(parts: dict[str, Any]) -> None:
    entry = parts["nodes"][3].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.stack_trace", "in forward"


def local_path(parts: dict[str, Any]) -> None:
    parts["nodes"][3].doc_string = 'made from "/home/someone/net.py"'


def pair_before_relu(parts: dict[str, Any]) -> None:
    nodes = parts["nodes"]
    nodes[4:4] = [
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["c_q"]),
        helper.make_node("DequantizeLinear", ["c_q", "s", "z"], ["c_d"]),
    ]
    replaced(nodes[6], {0: "c_d"})


def pair_on_both_branches(parts: dict[str, Any]) -> None:
    nodes = parts["nodes"]
    nodes[3:6] = [
        helper.make_node("Conv", ["x_d", "w", "b"], ["c"], "conv"),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["c_q"]),
        helper.make_node("DequantizeLinear", ["c_q", "s", "z"], ["c_d"]),
        helper.make_node("Add", ["c_d", "x_d"], ["a"], "add"),
    ]


def pair_before_sigmoid(parts: dict[str, Any]) -> None:
    parts["nodes"][5] = helper.make_node("Sigmoid", ["x_d"], ["a"], "sigmoid")


def before_the_end(*nodes: onnx.NodeProto) -> Callable[[dict[str, Any]], None]:
    """Puts nodes that make the float tensor ``t`` from ``a`` before the last pair."""

    def spoil(parts: dict[str, Any]) -> None:
        parts["constants"] |= {
            "sizes": np.array([1, 3, 4, 4], np.int64),
            "picked": np.array([0], np.int64),
            "s_2": np.array(0.2, np.float32),
        }
        place = last_pair(parts)
        replaced(parts["nodes"][place], {0: "t"})
        parts["nodes"][place:place] = nodes

    return spoil


def last_pair(parts: dict[str, Any]) -> int:
    return next(k for k, n in enumerate(parts["nodes"]) if n.name == "q_a")


def node(kind: str, inputs: list[str], outputs: list[str] | None = None, **more: Any) -> Any:
    return helper.make_node(kind, inputs, outputs or ["t"], kind.lower(), **more)


def on_the_integers(parts: dict[str, Any]) -> None:
    nodes = parts["nodes"]
    nodes[6] = helper.make_node("QuantizeLinear", ["a", "s", "z"], ["a_s"], "q_a")
    nodes.insert(7, helper.make_node("Clip", ["a_s", "z"], ["a_q"], "clip"))


def float_convolution(parts: dict[str, Any]) -> None:
    replaced(parts["nodes"][3], {0: "x"})


def two_scales(parts: dict[str, Any]) -> None:
    before_the_end(
        helper.make_node("QuantizeLinear", ["a", "s_2", "z"], ["o_q"]),
        helper.make_node("DequantizeLinear", ["o_q", "s_2", "z"], ["o"]),
        node("Concat", ["o", "x_d"], ["j"], axis=2),
        node("Gather", ["j", "places"], axis=2),
    )(parts)
    parts["constants"]["places"] = np.arange(4)


def computed_axes(parts: dict[str, Any]) -> None:
    before_the_end(
        node("NonZero", ["a"], ["n"]),
        node("Gather", ["n", "picked"], ["row"]),
        node("Gather", ["row", "picked"], ["cell"], axis=1),
        node("Reshape", ["cell", "flat"], ["axes"]),
        node("ReduceMean", ["a", "axes"]),
    )(parts)
    parts["constants"]["flat"] = np.array([1], np.int64)


def bitwise_not(parts: dict[str, Any]) -> None:
    before_the_end(
        node("Shape", ["a"], ["n"]),
        node("BitwiseNot", ["n"], ["m"]),
        node("BitwiseNot", ["m"], ["o"]),
        node("Reshape", ["a", "o"]),
    )(parts)


@pytest.mark.parametrize("device", [JETSON, BOARD], ids=lambda device: device.id)
def test_onnx_file_that_keeps_to_the_rules_has_no_findings(tmp_path: Path, device: Device) -> None:
    assert check_conformance(onnx_file(tmp_path / "net.onnx", onnx_parts()), device) == []


ONNX_FAULTS = [
        (uint8_activations, "onnx/activation-type", "error"),
        (affine_activations, "onnx/activation-symmetry", "error"),
        (missing_zero_points, "onnx/activation-type", "error"),
        (zero_scale, "onnx/activation-scale", "error"),
        (per_tensor_weights, "onnx/weight-axis", "error"),
        (wrong_axis, "onnx/weight-axis", "error"),
        (weight_below_range, "onnx/weights", "error"),
        (weight_zero_point, "onnx/weights", "error"),
        (float_weights, "onnx/weights", "error"),
        (quantized_bias, "tensorrt/bias", "error"),
        (new_opset, "onnx/opset", "error"),
        (stack_trace, "onnx/metadata", "error"),
        (local_path, "onnx/metadata", "error"),
        (pair_before_relu, "tensorrt/activation-fusion", "advice"),
        (pair_on_both_branches, "tensorrt/residual-fusion", "advice"),
        (pair_before_sigmoid, "tensorrt/operators", "advice"),
        (before_the_end(node("Celu", ["a"], domain="mine")), "onnx/own-domain", "error"),
        (float_convolution, "onnx/float-island", "advice"),
        (bitwise_not, "tensorrt/parsed", "error"),
        (on_the_integers, "tensorrt/integer-arithmetic", "error"),
        (before_the_end(
            node("MaxPool", ["a"], kernel_shape=[3, 3], dilations=[2, 2], pads=[2, 2, 2, 2])),
         "tensorrt/pooling", "error"),
        (before_the_end(node("MaxPool", ["a"], ["t", "at"], kernel_shape=[1, 1])),
         "tensorrt/pooling", "error"),
        (before_the_end(node("Resize", ["a", "", "", "sizes"], mode="cubic")),
         "tensorrt/resize", "error"),
        (before_the_end(node("Resize", ["a", "", "", "sizes"], mode="linear", antialias=1)),
         "tensorrt/resize", "error"),
        (computed_axes, "tensorrt/reduction-axes", "error"),
        (two_scales, "tensorrt/concat-scales", "advice"),
        (before_the_end(node("Cast", ["a"], ["d"], to=TensorProto.DOUBLE),
                        node("Cast", ["d"], to=TensorProto.FLOAT)),
         "tensorrt/double", "advice"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "rule", "level"), ONNX_FAULTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_onnx_fault_is_found_and_nothing_else(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], rule: str, level: str
) -> None:
    parts = onnx_parts()
    spoil(parts)
    findings = check_conformance(onnx_file(tmp_path / "net.onnx", parts), JETSON)
    assert set(rules(findings)) == {rule}
    assert {finding.level for finding in findings} == {level}
    assert all(finding.message and finding.source for finding in findings)


def test_tensorrt_rules_do_not_bind_other_runtimes(tmp_path: Path) -> None:
    for spoil in (affine_activations, quantized_bias, pair_on_both_branches):
        parts = onnx_parts()
        spoil(parts)
        assert check_conformance(onnx_file(tmp_path / "net.onnx", parts), BOARD) == []


@pytest.fixture(autouse=True)
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_rules, "cpu_flags", lambda: frozenset({"avx2", "avx_vnni"}))


def test_host_form_wants_uint8(tmp_path: Path) -> None:
    parts = onnx_parts()
    host = load_device("host")
    assert "onnx/activation-type" in rules(
        check_conformance(onnx_file(tmp_path / "net.onnx", parts), host)
    )
    uint8_activations(parts)
    assert check_conformance(onnx_file(tmp_path / "net.onnx", parts), host) == []


def test_name_that_a_command_line_cannot_carry_is_found(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx", onnx_parts())
    model = onnx.load(path)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "out:0"
    onnx.save(model, path)
    assert [(item.rule, item.where) for item in check_conformance(path, JETSON)] == [
        ("onnx/names", "out:0")
    ]


def test_weights_in_another_file_are_found_and_not_opened(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx", onnx_parts())
    model = onnx.load(path)
    weights = next(item for item in model.graph.initializer if item.name == "w_q")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../secret.bin")
    path.write_bytes(model.SerializeToString())
    assert [(item.rule, item.where) for item in check_conformance(path, JETSON)] == [
        ("onnx/external-data", "w_q")
    ]


def test_precision_that_the_device_refuses_is_found(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx", onnx_parts())
    findings = check_conformance(path, load_device("jetson-nano"))
    assert set(rules(findings)) == {"device/precision", "onnx/opset"}
    assert "no int8 arithmetic" in findings[0].message


# TFLite: image -> conv -> logistic, and conv -> average pool -> concat of both


class Tflite:
    """A small int8 graph whose tensors can be changed before it is written."""

    def __init__(self) -> None:
        self.inputs, self.output, self.custom = "image", "scores", "Mine"
        self.tensors: dict[str, dict[str, Any]] = {}
        self.operators: list[tuple[str, list[str], list[str]]] = []
        self.add("image", (1, 4, 4, 2), scales=[0.5])
        self.add("filters", (3, 1, 1, 2), scales=[0.1, 0.2, 0.3], data=np.full((3, 1, 1, 2), -127))
        self.add("bias", (3,), "INT32", scales=[0.05, 0.1, 0.15], data=np.zeros(3, np.int32))
        self.add("conv", (1, 4, 4, 3), scales=[0.25], zero_points=[3])
        self.add("pooled", (1, 4, 4, 3), scales=[0.25], zero_points=[3])
        self.add("joined", (1, 4, 4, 6), scales=[0.25], zero_points=[3])
        self.add("scores", (1, 4, 4, 6), scales=[1 / 256], zero_points=[-128])
        self.operators = [
            ("CONV_2D", ["image", "filters", "bias"], ["conv"]),
            ("AVERAGE_POOL_2D", ["conv"], ["pooled"]),
            ("CONCATENATION", ["conv", "pooled"], ["joined"]),
            ("LOGISTIC", ["joined"], ["scores"]),
        ]

    def add(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str = "INT8",
        *,
        scales: list[float] | None = None,
        zero_points: list[int] | None = None,
        axis: int = 0,
        data: np.ndarray | None = None,
    ) -> None:
        self.tensors[name] = {
            "shape": shape,
            "dtype": dtype,
            "scales": scales,
            "zero_points": zero_points or [0] * len(scales or []),
            "axis": axis,
            "data": data,
        }

    def write(self, path: Path) -> Path:
        schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
        import flatbuffers

        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
        index = {name: place for place, name in enumerate(self.tensors)}
        graph.tensors = [self._tensor(schema, model, name) for name in self.tensors]
        natives = list(dict.fromkeys(native for native, _, _ in self.operators))
        model.operatorCodes = [schema.OperatorCodeT() for _ in natives]
        for code, native in zip(model.operatorCodes, natives, strict=True):
            code.builtinCode = getattr(schema.BuiltinOperator, native)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.customCode = self.custom.encode() if native == "CUSTOM" else None
        graph.operators = [schema.OperatorT() for _ in self.operators]
        for item, (native, given, made) in zip(graph.operators, self.operators, strict=True):
            item.opcodeIndex = natives.index(native)
            item.inputs = [index[name] for name in given]
            item.outputs = [index[name] for name in made]
        graph.inputs, graph.outputs = [index[self.inputs]], [index[self.output]]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path

    def _tensor(self, schema: Any, model: Any, name: str) -> Any:
        given, tensor = self.tensors[name], schema.TensorT()
        tensor.name, tensor.shape = name.encode(), list(given["shape"])
        tensor.type = getattr(schema.TensorType, given["dtype"])
        tensor.buffer = 0
        if given["data"] is not None:
            buffer = schema.BufferT()
            values = given["data"].astype(given["dtype"].lower())
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        if given["scales"] is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = given["scales"]
            tensor.quantization.zeroPoint = given["zero_points"]
            tensor.quantization.quantizedDimension = given["axis"]
        return tensor


def change(name: str, **values: Any) -> Callable[[Tflite], None]:
    def spoil(net: Tflite) -> None:
        net.tensors[name] |= values

    return spoil


def depthwise_on_the_wrong_axis(net: Tflite) -> None:
    net.tensors["filters"] |= {"shape": (1, 1, 1, 3), "data": np.ones((1, 1, 1, 3))}
    net.operators[0] = ("DEPTHWISE_CONV_2D", ["image", "filters", "bias"], ["conv"])


def no_bias(net: Tflite) -> None:
    net.operators[0] = ("CONV_2D", ["image", "filters"], ["conv"])


def float_inside(net: Tflite) -> None:
    for name in ("real", "softened"):
        net.add(name, (1, 4, 4, 3), "FLOAT32")
    net.add("again", (1, 4, 4, 3), scales=[0.25], zero_points=[3])
    net.operators[1:2] = [
        ("DEQUANTIZE", ["conv"], ["real"]),
        ("ELU", ["real"], ["softened"]),
        ("QUANTIZE", ["softened"], ["again"]),
        ("AVERAGE_POOL_2D", ["again"], ["pooled"]),
    ]


def custom_operator(net: Tflite) -> None:
    net.operators[3] = ("CUSTOM", ["joined"], ["scores"])


def dead_scale(net: Tflite) -> None:
    two_image_scales(net)
    net.tensors["photo"] |= {"scales": [0.0], "zero_points": [0]}


def two_image_scales(net: Tflite) -> None:
    net.add("photo", (1, 4, 4, 2), scales=[0.5, 0.5])
    net.operators.insert(0, ("QUANTIZE", ["photo"], ["image"]))
    net.inputs = "photo"


def float_border(net: Tflite) -> None:
    net.add("answer", (1, 4, 4, 6), "FLOAT32")
    net.operators.append(("DEQUANTIZE", ["scores"], ["answer"]))
    net.output = "answer"


def test_tflite_file_that_keeps_to_the_rules_has_no_findings(tmp_path: Path) -> None:
    assert check_conformance(Tflite().write(tmp_path / "net.tflite"), BOARD) == []


TFLITE_FAULTS = [
    (change("filters", data=np.full((3, 1, 1, 2), -128)), "tflite/weight-range"),
    (change("filters", zero_points=[0, 1, 0]), "tflite/weight-zero-point"),
    (change("filters", axis=3), "tflite/weight-axis"),
    (depthwise_on_the_wrong_axis, "tflite/weight-axis"),
    (change("bias", scales=[0.05, 0.1, 0.16]), "tflite/bias"),
    (change("bias", dtype="INT16"), "tflite/bias"),
    (change("bias", zero_points=[0, 0, 1]), "tflite/bias"),
    (change("pooled", scales=[0.26]), "tflite/same-scale"),
    (change("joined", zero_points=[4]), "tflite/same-scale"),
    (change("scores", scales=[1 / 255]), "tflite/fixed-output"),
    (change("scores", zero_points=[0]), "tflite/fixed-output"),
    (change("image", dtype="UINT8"), "tflite/activation-type"),
    (float_inside, "tflite/float-between"),
    (no_bias, "xnnpack/bias"),
    (dead_scale, "tflite/positive-scale"),
    (change("image", zero_points=[128]), "tflite/zero-point-range"),
    (custom_operator, "tflite/builtin"),
    (float_border, "tflite/integer-border"),
    (two_image_scales, "tflite/one-scale"),
]


@pytest.mark.parametrize(("spoil", "rule"), TFLITE_FAULTS)
def test_tflite_fault_is_found_and_nothing_else(
    tmp_path: Path, spoil: Callable[[Tflite], None], rule: str
) -> None:
    net = Tflite()
    spoil(net)
    findings = check_conformance(net.write(tmp_path / "net.tflite"), BOARD)
    assert set(rules(findings)) == {rule}


def test_every_float_operator_inside_is_named(tmp_path: Path) -> None:
    net = Tflite()
    float_inside(net)
    findings = check_conformance(net.write(tmp_path / "net.tflite"), BOARD)
    assert [finding.where for finding in findings] == ["real", "softened"]


def test_float_at_either_end_is_legal(tmp_path: Path) -> None:
    net = Tflite()
    net.add("photo", (1, 4, 4, 2), "FLOAT32")
    net.add("answer", (1, 4, 4, 6), "FLOAT32")
    net.operators.insert(0, ("QUANTIZE", ["photo"], ["image"]))
    net.operators.append(("DEQUANTIZE", ["scores"], ["answer"]))
    net.inputs, net.output = "photo", "answer"
    findings = check_conformance(net.write(tmp_path / "net.tflite"), BOARD)
    assert [(f.rule, f.level, f.where) for f in findings] == [
        ("tflite/integer-border", "advice", "photo"),
        ("tflite/integer-border", "advice", "answer"),
    ]


def test_the_runtimes_own_custom_operator_is_no_stranger(tmp_path: Path) -> None:
    net = Tflite()
    custom_operator(net)
    net.custom = "TFLite_Detection_PostProcess"
    assert check_conformance(net.write(tmp_path / "net.tflite"), BOARD) == []


def test_per_tensor_weights_are_legal_in_a_fully_connected_layer_only(tmp_path: Path) -> None:
    net = Tflite()
    net.tensors["filters"] |= {"shape": (3, 2), "scales": [0.1], "zero_points": [0]}
    net.tensors["filters"]["data"] = np.ones((3, 2))
    net.tensors["bias"] |= {"scales": [0.05], "zero_points": [0]}
    net.operators[0] = ("FULLY_CONNECTED", ["image", "filters", "bias"], ["conv"])
    assert check_conformance(net.write(tmp_path / "net.tflite"), BOARD) == []
    net.tensors["filters"] |= {"shape": (3, 1, 1, 2), "data": np.ones((3, 1, 1, 2))}
    net.operators[0] = ("CONV_2D", ["image", "filters", "bias"], ["conv"])
    findings = check_conformance(net.write(tmp_path / "net.tflite"), BOARD)
    assert rules(findings) == ["tflite/weight-axis"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlperf_tiny/image_classification/pretrainedResnet_quant.tflite", set()),
        ("mlperf_tiny/image_classification/pretrainedResnet.tflite", set()),
        ("mlperf_tiny/visual_wake_words/vww_96_int8.tflite", set()),
        (
            "ssd_mobilenet_v1_coco_tflite/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite",
            {"tflite/activation-type", "tflite/same-scale", "tflite/fixed-output"},
        ),
    ],
)
def test_published_models_are_judged_as_they_should_be(name: str, expected: set[str]) -> None:
    pytest.importorskip("ai_edge_litert")
    if "EDGEKD_DATA" not in os.environ:
        pytest.skip("EDGEKD_DATA names no folder with reference models")
    path = Path(os.environ["EDGEKD_DATA"]) / "models" / name
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    assert set(rules(check_conformance(path, BOARD))) == expected


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"net\.pt: expected a model file"):
        check_conformance(tmp_path / "net.pt", BOARD)


def test_a_processor_without_vnni_is_told_that_uint8_saturates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = onnx_parts()
    uint8_activations(parts)
    path = onnx_file(tmp_path / "net.onnx", parts)
    host = load_device("host")
    monkeypatch.setattr(onnx_rules, "is_x86", lambda: True)
    monkeypatch.setattr(onnx_rules, "cpu_flags", lambda: frozenset({"avx2"}))
    assert rules(check_conformance(path, host)) == ["onnxruntime/saturation"]
    parts["constants"]["w_q"][:] = 64  # Two products of 255 and 64 fit in 16 bits.
    assert check_conformance(onnx_file(tmp_path / "small.onnx", parts), host) == []
    monkeypatch.setattr(onnx_rules, "cpu_flags", lambda: frozenset({"avx2", "avx_vnni"}))
    assert check_conformance(path, host) == []


def test_two_widths_of_floats_are_found(tmp_path: Path) -> None:
    graph = read_onnx(onnx_file(tmp_path / "net.onnx", onnx_parts()))
    assert not list(one_type(graph, JETSON))
    # ONNX's own checker forbids it too, so that no file can be written that breaks the rule.
    types = graph.types | {"x_d": TensorProto.FLOAT16}
    found = list(one_type(replace(graph, types=types), JETSON))
    assert {b.where for b in found} == {"conv", "add"}
    assert "float and float16" in found[0].message


def test_a_delegate_has_rules_of_its_own_that_nobody_else_is_held_to(tmp_path: Path) -> None:
    net = Tflite()
    net.add("mirrored", (1, 4, 4, 6), scales=[0.25], zero_points=[3])
    net.operators[3:] = [
        ("TRANSPOSE", ["joined"], ["mirrored"]), ("LOGISTIC", ["mirrored"], ["scores"])
    ]  # fmt: skip
    path = net.write(tmp_path / "net.tflite")
    assert check_conformance(path, BOARD) == []
    found = check_conformance(path, BOARD, ["gpu"])
    assert [(f.rule, f.level, f.where) for f in found] == [("gpu/operators", "advice", "mirrored")]


def test_qnn_wants_operators_that_it_knows_and_unsigned_activations(tmp_path: Path) -> None:
    parts = onnx_parts()
    path = onnx_file(tmp_path / "net.onnx", parts)
    assert set(rules(check_conformance(path, BOARD, ["qnn"]))) == {"qnn/unsigned"}
    uint8_activations(parts)
    before_the_end(node("Celu", ["a"]))(parts)
    path = onnx_file(tmp_path / "net.onnx", parts)
    assert rules(check_conformance(path, load_device("host"), ["qnn"])) == ["qnn/operators"]


@pytest.mark.parametrize(("name", "delegate"), [("net.onnx", "gpu"), ("net.tflite", "qnn")])
def test_a_delegate_for_files_of_another_kind_is_refused(
    tmp_path: Path, name: str, delegate: str
) -> None:
    with pytest.raises(ModelError, match=f"no rules of the delegate '{delegate}'"):
        check_conformance(tmp_path / name, BOARD, [delegate])


ELSEWHERE = {
    "device/precision", "onnx/external-data", "onnx/names", "onnxruntime/saturation",
    "tensorrt/one-type", "gpu/operators", "qnn/operators", "qnn/unsigned",
}  # fmt: skip
"""Rules whose broken file has a test of its own above."""


def test_every_rule_has_a_file_that_breaks_it_and_a_source() -> None:
    known = every_rule()
    assert {rule.id for rule in known} == ELSEWHERE | {
        rule for _, rule, *_ in (*ONNX_FAULTS, *TFLITE_FAULTS)
    }
    assert len({rule.id for rule in known}) == len(known)
    assert all(rule.source and rule.summary.endswith(".") for rule in known)


def test_sarif_names_every_rule_and_points_at_the_file(tmp_path: Path) -> None:
    parts = onnx_parts()
    zero_scale(parts)
    path = onnx_file(tmp_path / "net.onnx", parts)
    result = CliRunner().invoke(main, ["inspect", str(path), "--target", "jetson", "--sarif"])
    assert result.exit_code == 3
    log = json.loads(result.stdout)
    (run,) = log["runs"]
    listed = run["tool"]["driver"]["rules"]
    assert (log["version"], len(listed)) == ("2.1.0", len(every_rule()))
    assert run["results"]
    for entry in run["results"]:
        assert listed[entry["ruleIndex"]]["id"] == entry["ruleId"] == "onnx/activation-scale"
        assert entry["level"] == "error"
        uri = entry["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert Path(uri) == path


def test_rules_lists_what_inspect_checks() -> None:
    result = CliRunner().invoke(main, ["rules"])
    assert result.exit_code == 0
    assert all(rule.id in result.output and rule.source in result.output for rule in every_rule())
