"""The scripts behind the figures still run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "benchmarks").rglob("*.py"))
IMPORT_ALL = """
import importlib.util, sys
from pathlib import Path
for path in map(Path, sys.argv[1:]):
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"script_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    print(path.name)
"""


def test_every_script_can_be_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *SCRIPTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [path.name for path in SCRIPTS]


@pytest.mark.slow
def test_the_latencies_of_this_computer_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    script = ROOT / "benchmarks" / "host_latency.py"
    subprocess.run([sys.executable, script, "--short", "--out", out], check=True)
    record = json.loads(out.read_text())
    assert {"float.onnx", "int8-host.onnx", "float.tflite", "int8.tflite"} == set(
        record["measured"]
    )
    assert all(0 < pair["ratio"] < 20 for pair in record["ratios"].values())


@pytest.mark.slow
def test_the_worth_of_the_shipped_start_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    script = ROOT / "benchmarks" / "pretrained.py"
    subprocess.run([sys.executable, script, "--short", "--out", out], check=True)
    (row,) = json.loads(out.read_text())["rows"]
    assert len(row["random"]) == len(row["shipped"]) == 2
    assert row["interval"][0] <= row["gain"] <= row["interval"][1]


@pytest.mark.slow
def test_the_start_can_be_trained_again(tmp_path: Path) -> None:
    from edgekd.nets.card import load_card, load_weights
    from edgekd.run.inputs import shipped_start

    out = tmp_path / "start.safetensors"
    script = ROOT / "benchmarks" / "train_start.py"
    subprocess.run([sys.executable, script, "--short", "--out", out], check=True)
    shipped = shipped_start("edgedet-n")
    assert shipped is not None
    assert load_card(out) == load_card(shipped)
    shapes = [{n: v.shape for n, v in load_weights(path).items()} for path in (out, shipped)]
    assert shapes[0] == shapes[1]
