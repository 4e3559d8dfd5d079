"""Proofs that take minutes: a killed run resumes exactly, and a bare board gives the same boxes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import pytest

from edgekd.config.catalog import catalog_folder
from edgekd.core.files import sha256_of
from edgekd.data.dataset import load
from edgekd.data.image import letterbox, read_image
from edgekd.measure.detector import FileModel
from edgekd.modelfile.runner import TfliteRunner

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("run")]


def command(small_set: Path, teacher_file: Path, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "edgekd", "compress", "--until", "quantize",
        "--target", "raspberry-pi", "--data", str(small_set), "--teacher", str(teacher_file),
        "--input", "96x128", "--steps", "60", "--qat-steps", "30", "--batch-size", "4",
        "--out", str(out), "--torch-device", "cpu", "--threads", "1",
        "--set", "distill.training.checkpoint_s=0.2", "--set", "quantize.training.checkpoint_s=0.2",
        "--set", "quantize.calibration_images=8",
    ]  # fmt: skip


def test_a_run_killed_in_every_training_stage_ends_as_an_uninterrupted_one(
    small_set: Path, teacher_file: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(small_set, teacher_file, whole), check=True)
    for stage in ("distill", "float", "quantize"):
        kill_in(stage, command(small_set, teacher_file, cut), cut)
    subprocess.run(command(small_set, teacher_file, cut), check=True)
    for name in (
        "distill/student.safetensors", "float/graph.safetensors", "quantize/graph.safetensors"
    ):  # fmt: skip
        assert sha256_of(cut / name) == sha256_of(whole / name), name
    events = [json.loads(line) for line in (cut / "events.jsonl").read_text().splitlines()]
    assert sum(e["event"] == "started" for e in events) == 6


def kill_in(stage: str, arguments: list[str], run: Path) -> None:
    """Kills the run, as a power cut would, once the stage has written a checkpoint."""
    process = subprocess.Popen(arguments, start_new_session=True)
    deadline = time.monotonic() + 300
    while not (run / stage / "checkpoint.pt").exists():
        assert process.poll() is None, f"ended before a checkpoint of {stage}"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / stage / "done.json").exists()


BOARD_SCRIPT = """
import json, sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
import decoder

contract = json.load(open("int8.tflite.contract.json"))
net = Interpreter("int8.tflite")
net.allocate_tensors()
found = []
for pixels in np.load("pixels.npy"):
    image = (pixels[None].astype(np.int16) - 128).astype(np.int8)
    net.set_tensor(net.get_input_details()[0]["index"], image)
    net.invoke()
    outputs = [net.get_tensor(d["index"]) for d in net.get_output_details()]
    boxes, scores, labels = decoder.detect(outputs, contract, min_score=0.005)
    found.append([boxes.tolist(), scores.tolist(), labels.tolist()])
assert "torch" not in sys.modules and "edgekd" not in sys.modules
json.dump({"numpy": np.__version__, "found": found}, sys.stdout)
"""


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="tflite-runtime has no wheel for this Python"
)
def test_a_board_with_only_numpy_and_tflite_runtime_gives_the_same_detections(
    finished_run, small_set: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "board", with_pip=True)
    python = tmp_path / "board" / "bin" / "python"
    requirements = catalog_folder("devices") / "board-requirements.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    for name in ("int8.tflite", "int8.tflite.contract.json", "decoder.py"):
        (tmp_path / name).write_bytes((finished_run.folder / "export" / name).read_bytes())
    model = FileModel(finished_run.folder / "export" / "int8.tflite")
    builtin = TfliteRunner(model.runner.path, kernels="builtin")
    images = [read_image(s, 3) for s in load(small_set, "val").samples]
    pixels = np.stack([letterbox(i, model.contract.input)[0] for i in images])
    np.save(tmp_path / "pixels.npy", pixels)
    (tmp_path / "board.py").write_text(BOARD_SCRIPT)
    printed = subprocess.run(
        [python, "board.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    board = json.loads(printed.stdout)
    assert board["numpy"].startswith("1.")
    compared = 0
    for image, (boxes, scores, labels) in zip(pixels, board["found"], strict=True):
        # The kernels that tflite-runtime's Python interpreter uses; XNNPACK rounds differently.
        tensor = (image[None].astype(np.int16) - 128).astype(np.int8)
        here = model.postprocess(builtin.run(tensor), (1, 1, 0, 0), image.shape, 0.005)
        # Here boxes are clipped to the image; the letterboxed image maps onto itself.
        clipped = np.clip(boxes, 0, [128, 96, 128, 96])
        assert labels == here.labels.tolist()
        np.testing.assert_allclose(scores, here.scores, rtol=1e-5)
        np.testing.assert_allclose(clipped, here.boxes, atol=1e-4)
        compared += len(labels)
    assert compared > 0
