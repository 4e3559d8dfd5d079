"""The Python of README and docs, run: with fewer steps, on data of their names."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import edgekd

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
QUICK: dict[str, Any] = {
    "input": {"height": 64, "width": 64},
    "export": {"proof_images": 2},
    "benchmark": {"bootstrap": 100, "runs": 50, "seconds": 0},
    "report": {"visualisations": 1},
    "progress": False,
    "torch_device": "cpu",
}
STEPS = {"training": {"steps": 2, "batch_size": 2}}


@pytest.fixture
def place(
    boats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """A folder with what the examples name: a data set, a teacher, an image."""
    from edgekd.nets.card import Card, build, save_net

    shutil.copytree(boats, tmp_path / "boats")
    classes = edgekd.read_dataset(boats).classes
    card = Card(architecture="edgedet-n", classes=classes, height=64, width=64)
    save_net(tmp_path / "teacher.safetensors", build(card), card)
    Image.new("RGB", (64, 48), (90, 120, 60)).save(tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def shortened(place: pytest.MonkeyPatch, **more: Any) -> None:
    place.setattr(edgekd, "compress", partial(edgekd.compress, **QUICK, **more), raising=False)


def test_the_example_of_the_readme(place: pytest.MonkeyPatch) -> None:
    (code,) = BLOCK.findall((ROOT / "README.md").read_text())
    shortened(place, distill=STEPS, quantize={**STEPS, "calibration_images": 4})
    printed, found = io.StringIO(), dict[str, Any]()
    with contextlib.redirect_stdout(printed):
        exec(code, found)  # noqa: S102 - the documentation's own
    assert "DetectionMetrics" in printed.getvalue()
    assert Path("runs/boats-raspberry-pi/bundle").is_dir()
    assert found["detections"].boxes.shape[1] == 4
    assert code in (ROOT / "docs" / "own-data.md").read_text()


def test_the_network_as_an_object(place: pytest.MonkeyPatch) -> None:
    (code,) = (b for b in BLOCK.findall((ROOT / "docs" / "python.md").read_text()) if "=net" in b)
    shortened(place, quantize={**STEPS, "calibration_images": 4}, until="export")
    torch.manual_seed(0)
    classes = len(edgekd.read_dataset("boats").classes)
    head = nn.Sequential(nn.Conv2d(8, 4 + classes, 1), nn.Sigmoid(), nn.Flatten(2))
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), head)
    found = {"net": net, "edgekd": edgekd}
    exec(code, found)  # noqa: S102
    assert "int8.onnx" in found["run"].files
    assert list(Path("runs/boats-jetson").glob("sequential-*.pt2"))
