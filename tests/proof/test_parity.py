"""The proof must fail when a finished file is not what was trained, and name the operator."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from edgekd.core.results import Check
from edgekd.core.types import Arithmetic
from edgekd.proof.alignment import align, parameter_differences
from edgekd.proof.arithmetic import replay
from edgekd.proof.integer_graph import IntegerGraph
from edgekd.proof.intermediates import onnx_intermediates, tflite_intermediates
from edgekd.proof.parity import check_end_to_end, check_operators, check_parameters
from edgekd.proof.read_onnx import onnx_integer_graph
from edgekd.proof.read_tflite import tflite_graph

pytestmark = pytest.mark.xdist_group("run")


def changed_onnx(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def changed_tflite(path: Path, change: Callable[[object], None]) -> None:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def read(path: Path) -> IntegerGraph:
    return onnx_integer_graph(path) if path.suffix == ".onnx" else tflite_graph(path)[0]


def prove(trusted: Path, suspect: Path) -> tuple[Check, Check]:
    """Parameters and operators of ``suspect`` against those read from the untouched file."""
    trained, shipped = read(trusted), read(suspect)
    pairs = align(trained, shipped)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 96, 128, 3)).astype(np.int16)
    if suspect.suffix == ".onnx":
        floats = ((pixels - 128) / 128).astype(np.float32).transpose(0, 3, 1, 2)
        arithmetic: Arithmetic = "uint8" if "host" in trusted.name else "int8"
        integers = onnx_intermediates(suspect, list(shipped.grids), [], floats, arithmetic)
    else:
        shipped, indices = tflite_graph(suspect)
        integers = tflite_intermediates(suspect, indices, (pixels - 128).astype(np.int8))
    return (
        check_parameters(trained, shipped, pairs),
        check_operators(trained, shipped, pairs, integers, "runtime"),
    )


WEIGHTED = 12
"""Which convolution is damaged, in the file's order: one in the middle of the network."""


def onnx_node(model: onnx.ModelProto) -> tuple[onnx.NodeProto, dict[str, onnx.NodeProto]]:
    producers = {o: n for n in model.graph.node for o in n.output}
    return [n for n in model.graph.node if n.op_type == "Conv"][WEIGHTED], producers


def onnx_tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def replace_tensor(model: onnx.ModelProto, name: str, edit: Callable[[np.ndarray], None]) -> None:
    tensor = onnx_tensor(model, name)
    values = numpy_helper.to_array(tensor).copy()
    edit(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def onnx_scale(model: onnx.ModelProto) -> None:
    node, producers = onnx_node(model)

    def edit(values: np.ndarray) -> None:
        values[1] *= 1.02

    replace_tensor(model, producers[node.input[1]].input[1], edit)


def onnx_zero_point(model: onnx.ModelProto) -> None:
    """Moves one activation's zero point by one, on both sides of the tensor."""
    node, producers = onnx_node(model)
    dequantize = producers[node.input[0]]
    name = f"{dequantize.input[2]}_moved"
    values = numpy_helper.to_array(onnx_tensor(model, dequantize.input[2])) + np.int8(1)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.int8), name))
    tensor = dequantize.input[0]
    for other in model.graph.node:
        if other.op_type in ("QuantizeLinear", "DequantizeLinear") and tensor in (
            *other.input, *other.output
        ):  # fmt: skip
            other.input[2] = name


def onnx_swap(model: onnx.ModelProto) -> None:
    node, producers = onnx_node(model)

    def edit(values: np.ndarray) -> None:
        values[[0, 3]] = values[[3, 0]]

    replace_tensor(model, producers[node.input[1]].input[0], edit)


def onnx_bias(model: onnx.ModelProto) -> None:
    node, _ = onnx_node(model)

    def edit(values: np.ndarray) -> None:
        values[np.abs(values).argmax()] = 0.0

    replace_tensor(model, node.input[2], edit)


def tflite_parts(model: object) -> tuple[object, list[object]]:
    graph = model.subgraphs[0]
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    kinds = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    convolutions = [o for o in graph.operators if codes[o.opcodeIndex] in kinds]
    operator = convolutions[WEIGHTED]
    return operator, [graph.tensors[i] for i in (*operator.inputs, *operator.outputs)]


def tflite_scale(model: object) -> None:
    _, (_, weight, _, _) = tflite_parts(model)
    weight.quantization.scale = np.array(weight.quantization.scale, np.float32)
    weight.quantization.scale[1] *= 1.02


def tflite_zero_point(model: object) -> None:
    _, (data, *_) = tflite_parts(model)
    data.quantization.zeroPoint = np.array([data.quantization.zeroPoint[0] + 1])


def tflite_swap(model: object) -> None:
    _, (_, weight, _, _) = tflite_parts(model)
    buffer = model.buffers[weight.buffer]
    values = np.array(buffer.data, np.uint8).reshape(weight.shape)
    # A depthwise weight has its channels last, any other first.
    values = np.moveaxis(values, -1 if weight.shape[0] == 1 else 0, 0).copy()
    values[[0, 3]] = values[[3, 0]]
    back = np.moveaxis(values, 0, -1 if weight.shape[0] == 1 else 0)
    buffer.data = np.ascontiguousarray(back).ravel()


def tflite_bias(model: object) -> None:
    _, (_, _, bias, _) = tflite_parts(model)
    buffer = model.buffers[bias.buffer]
    values = np.array(buffer.data, np.uint8).view(np.int32).copy()
    values[np.abs(values).argmax()] = 0
    buffer.data = values.view(np.uint8)


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    change: Callable[..., None]


MUTATIONS = [
    Mutation("2 % on one channel's scale", "int8.onnx", onnx_scale),
    Mutation("one zero point by one", "int8.onnx", onnx_zero_point),
    Mutation("two channels swapped", "int8.onnx", onnx_swap),
    Mutation("one bias dropped", "int8.onnx", onnx_bias),
    Mutation("2 % on one channel's scale", "int8.tflite", tflite_scale),
    Mutation("one zero point by one", "int8.tflite", tflite_zero_point),
    Mutation("two channels swapped", "int8.tflite", tflite_swap),
    Mutation("one bias dropped", "int8.tflite", tflite_bias),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.name}")
def test_a_mutated_file_fails_its_proof_and_the_operator_is_named(
    finished_run, tmp_path: Path, mutation: Mutation
) -> None:
    original = finished_run.folder / "export" / mutation.file
    suspect = tmp_path / mutation.file
    shutil.copy(original, suspect)
    (changed_onnx if suspect.suffix == ".onnx" else changed_tflite)(suspect, mutation.change)
    parameters, _ = prove(original, suspect)
    assert not parameters.passed
    names = damaged_operators(original, suspect)
    assert parameters.failing_operator is not None
    assert any(name in parameters.failing_operator for name in names)


def damaged_operators(original: Path, suspect: Path) -> set[str]:
    """The convolution that was damaged, and whoever makes the tensor that it reads."""
    graph = read(suspect)
    convolutions = [o for o in graph.operators if o.kind == "conv"]
    damaged = convolutions[WEIGHTED]
    makers = {o.name for o in graph.operators if o.output in damaged.inputs}
    return {damaged.name} | makers


@pytest.mark.parametrize("change", [tflite_swap, tflite_bias], ids=lambda c: c.__name__)
def test_replaying_the_operators_alone_catches_a_damaged_weight(
    finished_run, tmp_path: Path, change: Callable[..., None]
) -> None:
    original = finished_run.folder / "export" / "int8.tflite"
    suspect = tmp_path / "int8.tflite"
    shutil.copy(original, suspect)
    changed_tflite(suspect, change)
    trained = read(original)
    # Aligned by wiring: the weights that differ must not keep the partners apart.
    _, operators = prove(original, suspect)
    assert not operators.passed
    assert operators.failing_operator in operators.details["within_one"]
    assert len(operators.details["within_one"]) == len(trained.operators)


@pytest.mark.parametrize("file", ["int8.onnx", "int8-host.onnx", "int8.tflite"])
def test_an_untouched_file_passes(finished_run, file: str) -> None:
    path = finished_run.folder / "export" / file
    for check in prove(path, path):
        assert check.passed, check.figure
        assert check.failing_operator is None


def test_onnx_and_tflite_hold_the_same_bytes(finished_run) -> None:
    onnx_file, tflite_file = (
        read(finished_run.folder / "export" / n) for n in ("int8.onnx", "int8.tflite")
    )
    pairs = align(onnx_file, tflite_file)
    weights = [(a.weight.values, b.weight.values) for a, b in pairs if a.weight]
    assert len(weights) == 40
    assert all(a.tobytes() == b.tobytes() for a, b in weights)
    assert not parameter_differences(onnx_file, tflite_file, pairs)


def test_exact_replay_of_a_convolution_equals_a_count_by_hand() -> None:
    from edgekd.proof.integer_graph import IntegerOperator, QuantizationParameters, Weight

    weight = Weight(
        np.array([[[[2]]], [[[-3]]]], np.int8),
        np.array([0.5, 0.25]),
        np.array([1.0, 0.0]),
        np.zeros(2),
    )
    operator = IntegerOperator(
        "conv", "conv", ("x",), "y", QuantizationParameters(0.1, -5), np.inf, weight,
        {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1},
    )  # fmt: skip
    # Reals: (6 - 2) 0.2 = 0.8; 0.8 x 1 + 1 = 1.8 -> 18 - 5 = 13; 0.8 x -0.75 < 0 -> ReLU -> -5.
    result = replay(operator, [(np.array([[[[6]]]], np.int8), QuantizationParameters(0.2, 2))])
    assert result.ravel().tolist() == [13, -5]


def test_a_convolution_adds_its_residual_before_the_activation() -> None:
    from edgekd.proof.integer_graph import IntegerOperator, QuantizationParameters, Weight

    weight = Weight(np.array([[[[2]]]], np.int8), np.array([0.5]), np.zeros(1), np.zeros(1))
    operator = IntegerOperator(
        "conv", "conv", ("x",), "y", QuantizationParameters(0.1, 0), np.inf, weight,
        {"stride": (1, 1), "dilation": (1, 1), "groups": 1}, residual="r",
    )  # fmt: skip
    # Reals: (6 - 2) 0.2 x 1 = 0.8, and (3 - 1) 0.25 = 0.5 or -1: 1.3 -> 13; -0.2 -> ReLU -> 0.
    read = [(np.array([[[[6, 6]]]], np.int8), QuantizationParameters(0.2, 2))]
    added = (np.array([[[[3, -3]]]], np.int8), QuantizationParameters(0.25, 1))
    assert replay(operator, read, added).ravel().tolist() == [13, 0]


def test_each_way_of_rounding_is_held_against_its_own_trained_graph() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(-100, 100, (4, 1000)).astype(np.int16)
    near = base + rng.integers(-1, 2, base.shape).astype(np.int16)
    far = base + 50
    apart = check_end_to_end([([base], {"a": [base], "b": [near]}), ([far], {"c": [far]})])
    assert apart.passed
    confused = check_end_to_end([([base], {"a": [base], "b": [near]}), ([base], {"c": [far]})])
    assert not confused.passed
    assert confused.failing_operator == "trained - c"


def test_end_to_end_fails_for_a_small_distance_that_every_image_has() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(-100, 100, (8, 4000)).astype(np.int16)
    near = base + rng.integers(-1, 2, base.shape).astype(np.int16)
    off = base + rng.choice([-1, 0, 1], base.shape, p=[0.4, 0.2, 0.4]).astype(np.int16)
    failed = check_end_to_end([([off], {"a": [base], "b": [near]})])
    assert not failed.passed


def test_end_to_end_does_not_fail_for_one_image_of_many() -> None:
    base = np.zeros((8, 4000), np.int16)
    near, trained = base.copy(), base.copy()
    near[:, :400] = 1
    runtimes = ([base], {"a": [base], "b": [near]})
    trained[:, :400] = 1
    trained[0, :800] = 1  # Twice as much in one of eight images is chance.
    assert check_end_to_end([([trained], {"c": [base]}), runtimes]).passed
    trained[0, :] = 20  # Gross in one image is none, however much that image differs.
    assert not check_end_to_end([([trained], {"c": [base]}), runtimes]).passed
    trained[:] = 0
    trained[:, :600] = 1  # The same in every image is none.
    found = check_end_to_end([([trained], {"c": [base]}), runtimes])
    assert not found.passed
    assert found.failing_operator == "trained - c"


def test_end_to_end_fails_for_a_graph_further_away_than_the_runtimes_are_from_each_other() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(-100, 100, (4, 1000)).astype(np.int16)
    near = base + rng.integers(-1, 2, base.shape).astype(np.int16)
    passed = check_end_to_end([([base], {"a": [base], "b": [near]})])
    assert passed.passed
    failed = check_end_to_end([([base + 5], {"a": [base], "b": [near]})])
    assert not failed.passed
    assert failed.failing_operator is not None
    assert failed.failing_operator.startswith("trained - ")
