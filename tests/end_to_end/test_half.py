"""A board without int8: the whole path in float16, for an old TensorRT."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from edgekd.cli import main
from edgekd.report.record import from_json


def compress(small_set: Path, teacher_file: Path, out: Path, *more: str) -> Result:
    arguments = [
        "compress", "--target", "jetson-nano", "--data", str(small_set),
        "--teacher", str(teacher_file), "--input", "96x128", "--steps", "4", "--qat-steps", "2",
        "--batch-size", "4", "--out", str(out), "--torch-device", "cpu",
        "--set", "export.proof_images=4", "--set", "benchmark.bootstrap=100",
        "--set", "benchmark.runs=50", "--set", "benchmark.seconds=0",
    ]  # fmt: skip
    return CliRunner().invoke(main, [*arguments, *more])


def test_a_board_without_int8_says_why_and_what_to_do(tmp_path, small_set, teacher_file) -> None:
    result = compress(small_set, teacher_file, tmp_path / "run")
    assert result.exit_code == 2
    assert "no int8 arithmetic" in result.output
    assert "--fp16" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_whole_path_in_float16(tmp_path, small_set, teacher_file) -> None:
    run = tmp_path / "run"
    result = compress(small_set, teacher_file, run, "--fp16", "--max-size", "10MiB")
    assert result.exit_code == 0, result.output
    assert "no tflite: jetson-nano does not execute it" in result.output
    record = from_json((run / "report" / "report.json").read_text())
    keys = [row.key for row in record.rows]
    assert keys == ["teacher", "student", "float-onnx", "float16-onnx"]
    assert all(check.passed for check in record.checks)
    assert [gate.model for gate in record.gates] == ["float16 ONNX"]
    floating, half = record.rows[-2:]
    assert half.metrics is not None
    assert half.metrics.map == pytest.approx(floating.metrics.map, abs=0.01)
    assert half.size_bytes < 0.6 * floating.size_bytes
    assert onnx.load(run / "export" / "float16.onnx").opset_import[0].version == 13
    (bundle,) = (p.parent for p in run.glob("bundle/*/manifest.json"))
    text = (bundle / "README.md").read_text()
    assert "trtexec --onnx=models/float.onnx --fp16" in text
    assert "int8" not in text.split("## Accuracy")[0]
    verified = CliRunner().invoke(main, ["verify", str(bundle), "--json"])
    assert verified.exit_code == 0, verified.output
    assert json.loads(verified.stdout)["passed"]
