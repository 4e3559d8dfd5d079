"""The functions of `import edgekd`, against what the command line makes of the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd.core.errors import DataError, ModelError, RecipeError
from edgekd.core.progress import SilentProgress
from edgekd.core.types import Precision, Task


def test_importing_the_package_loads_neither_torch_nor_a_runtime() -> None:
    code = (
        "import sys, edgekd; dir(edgekd); edgekd.EdgeKDError;"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'numpy', 'matplotlib'};"
        "print(heavy & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_every_public_name_is_there_and_no_other() -> None:
    for name in edgekd.__all__:
        assert getattr(edgekd, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'comprss'"):
        edgekd.comprss  # noqa: B018


def test_a_run_goes_on_where_the_command_line_ended(finished_run, small_set: Path) -> None:
    given = finished_run.arguments
    run = edgekd.compress(
        data=small_set,
        teacher=given[given.index("--teacher") + 1],
        target="raspberry-pi",
        out=finished_run.folder,
        progress=False,
        torch_device="cpu",
        input={"height": 96, "width": 128},
        distill={"baseline": True, "training": {"steps": 6, "batch_size": 4}},
        quantize={"calibration_images": 8, "training": {"steps": 4, "batch_size": 4}},
        export={"proof_images": 4},
        benchmark={"bootstrap": 100, "runs": 50, "seconds": 0},
        report={"visualisations": 2},
        student={"strides": [8, 16]},
    )
    lines = (finished_run.folder / "events.jsonl").read_text().splitlines()[-8:]
    assert {json.loads(line)["event"] for line in lines} == {"skipped"}
    assert run.report is not None
    assert {row.key for row in run.report.rows} >= {"teacher", "int8-onnx", "int8-tflite"}
    assert run.files["int8.tflite"] == finished_run.folder / "export" / "int8.tflite"
    assert run.bundle == finished_run.folder / "bundle" / "run-raspberry-pi"
    table = run._repr_html_()
    assert "int8 TFLite" in table
    assert "<pre" in table


def test_a_wrong_call_raises_what_the_command_line_prints(small_set: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'distill'"):
        edgekd.compress(data=small_set, distil={"steps": 1})
    with pytest.raises(edgekd.EdgeKDError, match="did you mean 'jetson'"):
        edgekd.compress(data=small_set, target="jetsn")
    with pytest.raises(DataError, match="no such data set"):
        edgekd.read_dataset(tmp_path / "nothing")
    with pytest.raises(RecipeError, match="legal: True, False, an object with meter and note"):
        edgekd.train(data=small_set, progress="loud", out=tmp_path / "run")


def test_training_gives_a_checkpoint_that_is_a_teacher(small_set: Path, tmp_path: Path) -> None:
    shown: list[str] = []

    class Mine(SilentProgress):
        def note(self, line: str) -> None:
            shown.append(line)

    trained = edgekd.train(
        data=small_set, student="edgedet-n", steps=2, out=tmp_path / "run", progress=Mine(),
        torch_device="cpu", input={"height": 96, "width": 128},
        distill={"training": {"batch_size": 2}},
    )  # fmt: skip
    assert trained.checkpoint.is_file()
    assert trained.metrics == edgekd.evaluate(trained.checkpoint, data=small_set, progress=False)
    assert any(line.startswith("data train: 12 images") for line in shown)


def test_an_exported_file_predicts_evaluates_and_is_timed(finished_run, small_set: Path) -> None:
    path = finished_run.folder / "export" / "int8.tflite"
    model = edgekd.load(path)
    picture = sorted((small_set / "val").glob("*.png"))[0]
    from_file = model.predict(picture, min_score=0.001)
    from_pixels = model.predict(np.asarray(Image.open(picture)), min_score=0.001)
    np.testing.assert_array_equal(from_file.boxes, from_pixels.boxes)
    assert len(from_file.scores) > 0
    assert model.classes == edgekd.read_dataset(small_set).classes
    with pytest.raises(DataError, match=r"nothing\.png"):
        model.predict("nothing.png")
    assert edgekd.evaluate(path, data=small_set, progress=False).images == 8
    predicted = edgekd.benchmark(path, target="raspberry-pi-4")
    assert (predicted.basis.value, predicted.where) == ("predicted", "raspberry-pi-4")


def test_networks_are_made_by_name() -> None:
    assert {"edgedet-n", "edgecls-l"} < set(edgekd.list_models())
    net = edgekd.create_model("edgedet-n0.5", classes=("boat",), height=96, width=128)
    assert sum(p.numel() for p in net.parameters()) > 10_000
    with pytest.raises(ModelError, match="did you mean"):
        edgekd.create_model("edgedet-z", classes=("boat",))


def test_catalogues_are_records(tmp_path: Path, small_set: Path) -> None:
    devices = {device.id: device for device in edgekd.list_devices()}
    assert Precision.INT8 in devices["raspberry-pi"].runtime.precisions
    (tmp_path / "recipe.yaml").write_text("seed: 7\n")
    assert edgekd.load_recipe(tmp_path / "recipe.yaml").seed == 7
    assert edgekd.read_dataset(small_set, split="val").task is Task.DETECTION
