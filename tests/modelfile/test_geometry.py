"""The shape of a multiplication must give its multiply-accumulates, in either format."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgekd.modelfile.operators import Geometry, ModelOperators, OperatorKind
from edgekd.modelfile.read import read_operators


def product(shape: Geometry) -> int:
    per_output = shape.inputs // shape.groups * math.prod(shape.kernel)
    return shape.height * shape.width * shape.outputs * per_output


def check(model: ModelOperators) -> None:
    assert model.macs > 0
    for operator in model.operators:
        assert (operator.geometry is not None) == (operator.macs > 0)
        if operator.geometry:
            assert product(operator.geometry) == operator.macs


@pytest.mark.parametrize("name", ["float.onnx", "int8.onnx", "float.tflite", "int8.tflite"])
def test_both_formats_of_one_net_have_the_same_shapes(finished_run, name: str) -> None:
    model = read_operators(finished_run.folder / "export" / name)
    check(model)
    shapes = [o.geometry for o in model.operators if o.geometry]
    twin = read_operators(finished_run.folder / "export" / "float.onnx")
    assert sorted(map(repr, shapes)) == sorted(
        repr(o.geometry) for o in twin.operators if o.geometry
    )
    assert {s.stride for s in shapes} == {1, 2}
    assert any(s.groups == s.inputs > 1 for s in shapes)


@pytest.mark.parametrize(
    "name",
    [
        "mlperf_tiny/image_classification/pretrainedResnet_quant.tflite",
        "mlperf_tiny/visual_wake_words/vww_96_int8.tflite",
        "ssd_mobilenet_v1_coco_tflite/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite",
    ],
)
def test_foreign_files_add_up(real_data: Path, name: str) -> None:
    check(read_operators(real_data / "models" / name))


def test_groups_transposition_and_rows(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 6, 10])
    nodes, weights = [], []

    def add(kind: str, shape: list[int], source: str, **attributes: object) -> str:
        name = f"{kind}{len(nodes)}"
        values = [0.0] * math.prod(shape)
        weights.append(helper.make_tensor(f"w{name}", TensorProto.FLOAT, shape, values))
        nodes.append(helper.make_node(kind, [source, f"w{name}"], [name], **attributes))
        return name

    grouped = add("Conv", [12, 4, 3, 1], "x", group=2, strides=[2, 1], pads=[1, 0, 1, 0])
    larger = add("ConvTranspose", [12, 5, 2, 2], grouped, strides=[2, 2])
    add("MatMul", [20, 7], larger)
    out = helper.make_tensor_value_info("MatMul2", TensorProto.FLOAT, [1, 5, 6, 7])
    graph = helper.make_graph(nodes, "g", [image], [out], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "m.onnx")
    read = read_operators(tmp_path / "m.onnx")
    check(read)
    conv, transposed, matrix = (operator.geometry for operator in read.operators)
    assert conv == Geometry(
        inputs=8, outputs=12, height=3, width=10, kernel=(3, 1), stride=2, groups=2
    )
    assert transposed == Geometry(inputs=12, outputs=5, height=3, width=10, kernel=(2, 2), stride=2)
    assert matrix == Geometry(inputs=20, outputs=7, height=30, width=1)
    assert [o.kind for o in read.operators] == [
        OperatorKind.CONV, OperatorKind.TRANSPOSED_CONV, OperatorKind.MATMUL,
    ]  # fmt: skip
