from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekd.core.errors import ModelError
from edgekd.core.types import Format, Precision
from edgekd.modelfile.operator_table import BY_TFLITE
from edgekd.modelfile.operators import OperatorKind
from edgekd.modelfile.read import read_operators
from edgekd.modelfile.tflite_graph import read_tflite
from edgekd.modelfile.tflite_operators import _CONTROL_FLOW

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")


@pytest.fixture
def models() -> Path:
    folder = Path(os.environ.get("EDGEKD_DATA", "")) / "models"
    if "EDGEKD_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("EDGEKD_DATA names no folder with reference models")
    return folder


RESNET = "mlperf_tiny/image_classification/pretrainedResnet_quant.tflite"
WAKE_WORDS = "mlperf_tiny/visual_wake_words/vww_96_int8.tflite"


def test_every_operator_name_is_in_the_schema() -> None:
    assert set(BY_TFLITE) <= set(vars(schema.BuiltinOperator))
    assert set(_CONTROL_FLOW) <= set(vars(schema.BuiltinOperator))


def test_resnet_matches_the_hand_count(models: Path) -> None:
    model = read_operators(models / RESNET)
    # 3x3 convolutions at 32x32, 16x16 and 8x8, two 1x1 shortcuts, 64 to 10 at the end.
    first = 32 * 32 * 16 * 9 * 3
    stack1 = 2 * 32 * 32 * 16 * 9 * 16
    stack2 = 16 * 16 * 32 * (9 * 16 + 9 * 32 + 16)
    stack3 = 8 * 8 * 64 * (9 * 32 + 9 * 64 + 32)
    assert model.macs == first + stack1 + stack2 + stack3 + 640
    weights = 16 * 27 + 2 * 16 * 144 + 32 * (144 + 288 + 16) + 64 * (288 + 576 + 32) + 640
    biases = 3 * 16 + 3 * 32 + 3 * 64 + 10
    assert model.parameters == weights + biases
    assert model.integer_mac_share == 1.0
    assert model.precision is Precision.INT8
    assert model.format is Format.TFLITE
    assert model.size_bytes == (models / RESNET).stat().st_size


def test_bytes_are_those_of_the_stored_types(models: Path) -> None:
    integer = read_operators(models / RESNET).operators[0]
    assert integer.kind is OperatorKind.CONV
    assert (integer.input_bytes, integer.output_bytes) == (32 * 32 * 3, 32 * 32 * 16)
    assert integer.weight_bytes == 16 * 27 + 4 * 16
    real = read_operators(models / RESNET.replace("_quant", "")).operators[0]
    assert real.precision is Precision.FLOAT32
    assert real.weight_bytes == 4 * (16 * 27 + 16)


def test_depthwise_convolutions_are_told_apart(models: Path) -> None:
    model = read_operators(models / WAKE_WORDS)
    depthwise = [item for item in model.operators if item.kind is OperatorKind.DEPTHWISE_CONV]
    assert len(depthwise) == 13
    assert depthwise[0].macs == 48 * 48 * 8 * 9
    # MobileNet v1 0.25 at 96x96: the figure published with the benchmark is 7.5 million.
    assert model.macs == pytest.approx(7.5e6, rel=0.01)


def test_foreign_operator_and_float_tail_are_kept(models: Path) -> None:
    name = "ssd_mobilenet_v1_coco_tflite/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"
    last = read_operators(models / name).operators[-1]
    assert (last.native, last.kind) == ("CUSTOM", OperatorKind.OTHER)
    assert last.precision is Precision.FLOAT32


def test_graph_carries_scales_axes_and_constants(models: Path) -> None:
    graph = read_tflite(models / RESNET)
    image, weights, bias = graph.operators[0].inputs
    assert image is graph.inputs[0]
    assert image.data is None
    assert image.scales.tolist() == [1.0]
    assert image.zero_points.tolist() == [-128]
    assert weights.axis == 0
    assert weights.scales.shape == (16,)
    assert weights.data is not None
    assert weights.data.shape == (16, 3, 3, 3)
    assert weights.data.dtype == "int8"
    assert bias.data is not None
    assert bias.data.dtype == "int32"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file_is_refused_by_name(models: Path, tmp_path: Path, share: float) -> None:
    content = (models / RESNET).read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"cut\.tflite"):
        read_operators(path)


def test_corrupt_offsets_are_refused_by_name(models: Path, tmp_path: Path) -> None:
    content = bytearray((models / RESNET).read_bytes())
    content[0:4] = (len(content) - 8).to_bytes(4, "little")
    path = tmp_path / "bent.tflite"
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"bent\.tflite: truncated or corrupt"):
        read_operators(path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.tflite"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match=r"page\.tflite: not a TFLite file"):
        read_operators(path)
    with pytest.raises(ModelError, match=r"gone\.tflite: cannot be read"):
        read_operators(tmp_path / "gone.tflite")
