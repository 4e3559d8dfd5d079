"""The uint8 form of an int8 file computes the same on every x86 processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.export.onnx_file import as_uint8
from edgekd.modelfile.runner import OnnxRunner

DEPTH, LAYERS = 64, 3


def saturating_net() -> onnx.ModelProto:
    """1x1 convolutions of the largest weights, whose zero point they share, on the largest input.

    Each is a mean over its channels, so that every output is the input's value again.
    """
    largest = np.full((DEPTH, DEPTH, 1, 1), 127, np.int8)
    arrays = {
        "scale": np.float32(1 / 128),
        "zero": np.int8(-128),
        "w_scale": np.full(DEPTH, 1 / (127 * DEPTH), np.float32),
        "w_zero": np.zeros(DEPTH, np.int8),
        **{f"w{i}": largest for i in range(LAYERS)},
    }
    nodes, name = [], "x"
    for i in range(LAYERS):
        nodes += [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", "scale", "zero"], [f"d{i}"]),
            helper.make_node("DequantizeLinear", [f"w{i}", "w_scale", "w_zero"], [f"f{i}"], axis=0),
            helper.make_node("Conv", [f"d{i}", f"f{i}"], [f"y{i}"], f"conv{i}"),
        ]
        name = f"y{i}"
    nodes += [
        helper.make_node("QuantizeLinear", [name, "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, DEPTH, 2, 2]) for n in ("x", "y")
    ]
    constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_sums_that_saturate_without_vnni_are_computed_in_full(tmp_path: Path) -> None:
    path = tmp_path / "host.onnx"
    onnx.save(as_uint8(saturating_net()), path)
    images = np.full((1, DEPTH, 2, 2), 255 / 128, np.float32)
    runner = OnnxRunner(path, arithmetic="uint8")
    np.testing.assert_allclose(runner.run(images)[0], images, atol=1e-6)


def test_no_two_weights_share_a_zero_point() -> None:
    host = as_uint8(saturating_net())
    weights = {t.name for t in host.graph.initializer if t.name.startswith("w")}
    dequantized = [n.input for n in host.graph.node if n.op_type == "DequantizeLinear"]
    own = [zero for weight, _, zero in dequantized if weight in weights]
    assert len(own) == len(set(own)) == LAYERS
    onnx.checker.check_model(host)


def test_a_layer_that_is_called_twice_opens_and_computes_in_full(tmp_path: Path) -> None:
    model = saturating_net()
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.input[1] = "f0"
    unused = [n for n in model.graph.node if n.output[0] in ("f1", "f2")]
    for node in unused:
        model.graph.node.remove(node)
    path = tmp_path / "host.onnx"
    onnx.save(as_uint8(model), path)
    images = np.full((1, DEPTH, 2, 2), 255 / 128, np.float32)
    (found,) = OnnxRunner(path, arithmetic="uint8").run(images)
    np.testing.assert_allclose(found, images, atol=1e-6)


def test_a_weight_without_a_zero_point_gets_one(tmp_path: Path) -> None:
    model = saturating_net()
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0].startswith("w"):
            del node.input[2:]
    path = tmp_path / "host.onnx"
    onnx.save(as_uint8(model), path)
    images = np.full((1, DEPTH, 2, 2), 255 / 128, np.float32)
    (found,) = OnnxRunner(path, arithmetic="uint8").run(images)
    np.testing.assert_allclose(found, images, atol=1e-6)
