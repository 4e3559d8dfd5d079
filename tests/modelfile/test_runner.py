from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.core.errors import ModelError
from edgekd.core.types import Form, Precision, arithmetic_of
from edgekd.modelfile.runner import SESSION_SWITCHES, OnnxRunner, TfliteRunner, open_runner
from edgekd.standalone import agent, replay


@pytest.fixture
def models() -> Path:
    folder = Path(os.environ.get("EDGEKD_DATA", "")) / "models" / "mlperf_tiny"
    if "EDGEKD_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("EDGEKD_DATA names no folder with reference models")
    pytest.importorskip("ai_edge_litert")
    return folder


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """Two outputs whose order is neither alphabetical nor that of the nodes."""
    nodes = [
        helper.make_node("Add", ["x", "one"], ["a_sum"]),
        helper.make_node("Mul", ["x", "two"], ["z_double"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])
        for name in ("x", "z_double", "a_sum")
    ]
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("one", 1), ("two", 2))
    ]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], constants)
    path = tmp_path / "net.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path
    )
    return path


def test_onnx_outputs_come_in_the_order_of_the_file(onnx_file: Path) -> None:
    runner = open_runner(onnx_file, threads=1)
    assert isinstance(runner, OnnxRunner)
    assert [item.name for item in runner.outputs] == ["z_double", "a_sum"]
    doubled, added = runner.run(np.array([[1, 2, 3]], np.float32))
    assert doubled.tolist() == [[2, 4, 6]]
    assert added.tolist() == [[2, 3, 4]]


def test_onnx_runner_describes_itself(onnx_file: Path) -> None:
    runner = open_runner(onnx_file, threads=1)
    assert runner.runtime == "onnxruntime"
    assert runner.runtime_version[0].isdigit()
    assert (runner.delegate, runner.threads, runner.path) == ("cpu", 1, onnx_file)
    assert (runner.input.name, runner.input.dtype) == ("x", "float32")
    assert runner.input.shape == (None, 3)
    assert open_runner(onnx_file, arithmetic="int8").delegate == "cpu-int8"


@pytest.mark.parametrize("given", [np.zeros((1, 4), np.float32), np.zeros((1, 3), np.float64)])
def test_input_that_does_not_fit_is_refused(onnx_file: Path, given: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"input 'x' is float32 \(None, 3\), got float"):
        open_runner(onnx_file).run(given)


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("a", "b", "y")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])], "net", values[:2], values[2:]
    )
    path = tmp_path / "two.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path
    )
    with pytest.raises(ModelError, match=r"one input, got 2: a, b"):
        open_runner(path)


def test_corrupt_missing_and_foreign_files_are_refused_by_name(
    onnx_file: Path, tmp_path: Path
) -> None:
    onnx_file.write_bytes(onnx_file.read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"net\.onnx: refused by ONNX Runtime"):
        open_runner(onnx_file)
    (tmp_path / "net.tflite").write_bytes(b"\0\0\0\0TFL3" + b"\1" * 100)
    with pytest.raises(ModelError, match=r"net\.tflite: refused by "):
        open_runner(tmp_path / "net.tflite")
    with pytest.raises(ModelError, match=r"gone\.onnx: no such file"):
        open_runner(tmp_path / "gone.onnx")
    (tmp_path / "net.pt").write_bytes(b"")
    with pytest.raises(ModelError, match=r"\.onnx or \.tflite"):
        open_runner(tmp_path / "net.pt")


@pytest.mark.parametrize("kernels", ["default", "builtin", "reference"])
def test_tflite_kernels_agree_to_a_step(models: Path, kernels: str) -> None:
    path = models / "visual_wake_words" / "vww_96_int8.tflite"
    runner = TfliteRunner(path, kernels=kernels)  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(-128, 128, (1, 96, 96, 3)).astype(np.int8)
    (scores,) = runner.run(image)
    (expected,) = TfliteRunner(path, kernels="reference").run(image)
    assert np.abs(scores.astype(int) - expected).max() <= 1
    assert runner.delegate == {"default": "xnnpack"}.get(kernels, kernels)


def test_tflite_runner_describes_itself(models: Path) -> None:
    runner = open_runner(models / "visual_wake_words" / "vww_96_int8.tflite", threads=1)
    assert runner.runtime == "litert"
    assert (runner.input.dtype, runner.input.shape) == ("int8", (1, 96, 96, 3))
    assert runner.input.scale == pytest.approx(1 / 255)
    assert runner.input.zero_point == -128
    assert [(item.scale, item.zero_point) for item in runner.outputs] == [(1 / 256, -128)]


def test_outputs_survive_the_next_run(models: Path) -> None:
    runner = open_runner(models / "visual_wake_words" / "vww_96_int8.tflite")
    dark, light = (np.full((1, 96, 96, 3), value, np.int8) for value in (-128, 100))
    (first,) = runner.run(dark)
    kept = first.copy()
    runner.run(light)
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("form", ["board", "host"])
def test_a_board_and_a_bundle_compute_a_file_as_its_proof_did(form: Form) -> None:
    (switch,) = SESSION_SWITCHES[arithmetic_of(Precision.INT8, form)]
    assert agent.SWITCHES[form] == replay.SWITCHES[form] == switch


def test_only_an_int8_file_of_our_own_needs_an_arithmetic() -> None:
    assert arithmetic_of(Precision.INT8, "peer") == "any"
    assert arithmetic_of(Precision.FLOAT32, "board") == "any"
