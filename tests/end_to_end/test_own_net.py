"""A network that EdgeKD did not define goes the whole path, with itself as the teacher."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner, Result

from edgekd.cli import main
from edgekd.core.types import Task
from edgekd.nets.card import CustomCard
from edgekd.nets.custom import CustomModel, call_factory, load_state
from edgekd.report.record import from_json

MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.heads = nn.ModuleList(nn.Conv2d(8, n, 1) for n in outputs)

    def forward(self, x):
        x = self.body(x)
        return tuple(head(x) for head in self.heads)

class Classifier(Net):
    def forward(self, x):
        (y,) = super().forward(x)
        return y.mean((2, 3))

def detector():
    return Net((3, 4))

def classifier():
    return Classifier((2,))

def broken():
    raise RuntimeError("no such luck")

def number():
    return 3
"""
QUICK = [
    "--target", "raspberry-pi", "--qat-steps", "3", "--batch-size", "4", "--torch-device", "cpu",
    "--set", "export.proof_images=3", "--set", "benchmark.bootstrap=100",
    "--set", "benchmark.runs=50", "--set", "benchmark.seconds=0",
    "--set", "quantize.calibration_images=8",
]  # fmt: skip


def edgekd(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's file, and beside it the weights of both of its networks as users keep them."""
    folder = tmp_path_factory.mktemp("model")
    path = folder / "my_model.py"
    path.write_text(MODEL)
    torch.manual_seed(3)
    for name in ("detector", "classifier"):
        net = call_factory(f"{path}:{name}")
        state = {f"module.{k}": v for k, v in net.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3}, folder / f"{name}.pth")
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of two classes: dark and bright."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 6)):
        for label, level in (("dark", 60), ("bright", 190)):
            (root / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = rng.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                PIL.Image.fromarray(pixels).save(root / split / label / f"{index}.png")
    return root


def test_a_classifier_becomes_integer_with_itself_as_the_teacher(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    result = edgekd(
        "compress", "--data", pictures, "--teacher", f"{model}:classifier",
        "--weights", model.with_name("classifier.pth"), "--student", "same", "--input", "32x32",
        "--set", "network.mean=[123.7,116.3,103.5]", "--set", "network.std=[58.4,57.1,57.4]",
        "--set", "network.colour=bgr", "--out", tmp_path / "run", *QUICK,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = from_json((tmp_path / "run" / "report" / "report.json").read_text())
    assert all(check.passed for check in record.checks)
    assert {row.key for row in record.rows} >= {"teacher", "int8-onnx", "int8-tflite"}
    assert all(row.metrics is not None for row in record.rows)
    (bundle,) = (tmp_path / "run" / "bundle").glob("*/manifest.json")
    verified = edgekd("verify", bundle.parent)
    assert verified.exit_code == 0, verified.output


def test_the_adapter_computes_the_networks_own_normalisation(model: Path) -> None:
    net = call_factory(f"{model}:classifier")
    load_state(net, model.with_name("classifier.pth"))
    own = CustomCard(
        task=Task.CLASSIFICATION, mean=(1.0, 2.0, 3.0), std=(50.0, 60.0, 70.0), colour="bgr"
    )
    wrapped = CustomModel(net, own, 3).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).float()
    bgr = pixels.flip(1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (own.mean, own.std))
    (found,) = wrapped((pixels - 128) / 128)
    torch.testing.assert_close(found, net.eval()((bgr - mean) / std), atol=1e-5, rtol=1e-4)


def test_a_detector_whose_outputs_nobody_explained_is_reproduced_without_map(
    model: Path, small_set: Path, tmp_path: Path
) -> None:
    result = edgekd(
        "compress", "--data", small_set, "--teacher", f"{model}:detector",
        "--weights", model.with_name("detector.pth"), "--student", "same", "--input", "64x64",
        "--out", tmp_path / "run", *QUICK,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = from_json((tmp_path / "run" / "report" / "report.json").read_text())
    assert all(check.passed for check in record.checks)
    assert all(row.metrics is None for row in record.rows)
    curve = json.loads((tmp_path / "run" / "quantize" / "curve.json").read_text())
    assert set(curve[0]) == {"step", "loss", "term/kd/raw-outputs"}


@pytest.mark.parametrize(
    ("function", "weights", "said"),
    [
        ("missing", None, "has no function 'missing'"),
        ("broken", None, "raised RuntimeError: no such luck"),
        ("number", None, "returned a int"),
        ("detector", "classifier.pth", "does not fit Net"),
        ("detector", "nowhere.pth", "no such file of weights"),
    ],
)
def test_what_is_wrong_with_a_users_file_is_said(
    model: Path, small_set: Path, tmp_path: Path, function: str, weights: str | None, said: str
) -> None:
    arguments = ["--weights", model.with_name(weights)] if weights else []
    result = edgekd(
        "compress", "--data", small_set, "--teacher", f"{model}:{function}", *arguments,
        "--student", "same", "--out", tmp_path / "run", *QUICK,
    )  # fmt: skip
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_pickle_that_would_run_code_is_refused(
    model: Path, small_set: Path, tmp_path: Path
) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    result = edgekd(
        "compress", "--data", small_set, "--teacher", f"{model}:detector",
        "--weights", tmp_path / "evil.pth", "--student", "same", "--out", tmp_path / "run", *QUICK,
    )  # fmt: skip
    assert result.exit_code == 2
    assert "holds more than tensors" in result.output
    assert not (tmp_path / "ran").exists()


def test_classes_of_a_data_set_without_teacher_say_what_to_do(
    pictures: Path, tmp_path: Path
) -> None:
    result = edgekd("compress", "--data", pictures, "--out", tmp_path / "run", *QUICK)
    assert result.exit_code == 2
    assert "edgekd train" in result.output
