"""The line that builds an engine, for each version, and which file to take."""

from __future__ import annotations

import pytest

from edgekd.bundle.tensorrt import trtexec_lines
from edgekd.core.results import Basis, Latency, ModelRow
from edgekd.core.types import Precision
from edgekd.report.recommendation import recommendation

BOTH = ["float.onnx", "float16.onnx", "int8.onnx"]


def test_each_version_gets_the_flags_that_it_has() -> None:
    lines = dict.fromkeys(version for version, _ in trtexec_lines(BOTH, 13))
    assert list(lines) == ["8.2", "8.5", "10.3", "11"]
    by_version = {v: [c for w, c in trtexec_lines(BOTH, 13) if w == v] for v in lines}
    assert by_version["8.5"] == [
        "trtexec --onnx=models/int8.onnx --int8 --fp16 --saveEngine=int8.engine",
        "trtexec --onnx=models/float.onnx --fp16 --saveEngine=float16.engine",
    ]
    assert by_version["11"] == [
        "trtexec --onnx=models/int8.onnx --saveEngine=int8.engine",
        "trtexec --onnx=models/float16.onnx --saveEngine=float16.engine",
    ]
    assert not any("--int8" in c or "--fp16" in c for c in by_version["10.3"] + by_version["11"])


def test_a_version_that_cannot_parse_the_files_is_left_out() -> None:
    assert {version for version, _ in trtexec_lines(BOTH, 20)} == {"10.3", "11"}


def test_a_board_without_int8_gets_no_line_for_it() -> None:
    lines = [command for _, command in trtexec_lines(["float.onnx", "float16.onnx"], 13)]
    assert lines
    assert not any("int8" in line for line in lines)


def row(precision: Precision, median: float, low: float, high: float) -> ModelRow:
    latency = Latency(
        basis=Basis.PREDICTED, where="jetson", runtime="tensorrt", runtime_version="10.3",
        delegate="gpu", threads=1, median_ms=median, low_ms=low, high_ms=high, note="uncalibrated",
    )  # fmt: skip
    key = f"{precision.value}-onnx"
    return ModelRow(
        key=key, name=key, runtime="x", precision=precision, parameters=1, macs=1, size_bytes=1,
        path=f"{key}.onnx", metrics=None, predicted=latency,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("int8", "half", "said"),
    [
        ((2, 1, 3), (2, 1, 3), "Take float16"),
        ((3, 1, 9), (2, 1, 3), "Take float16"),
        ((1, 0.5, 1.5), (4, 2, 6), "Take int8"),
        ((1, 0.5, 2.5), (4, 2, 6), "Measure both"),
    ],
)
def test_int8_has_to_win(int8, half, said) -> None:
    rows = [row(Precision.INT8, *int8), row(Precision.FLOAT16, *half)]
    text = recommendation(rows)
    assert text.startswith(said)
    assert "uncalibrated" in text


def test_without_a_prediction_nothing_is_recommended() -> None:
    assert recommendation([row(Precision.INT8, 1, 1, 1)]) == ""
