"""Networks that a program gives as objects, and what follows a run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import edgekd
from edgekd.cli import main
from edgekd.core.errors import ModelError, RecipeError
from edgekd.core.files import sha256_of
from edgekd.nets.program import content_hash, exported, keep_program, load_program

QUICK = {
    "input": {"height": 32, "width": 32},
    "quantize": {"training": {"steps": 3, "batch_size": 4}, "calibration_images": 4},
    "distill": {"training": {"steps": 3, "batch_size": 4}},
    "export": {"proof_images": 2},
    "benchmark": {"bootstrap": 100, "runs": 50, "seconds": 0},
    "target": "raspberry-pi",
    "progress": False,
    "torch_device": "cpu",
}


def classifier(classes: int = 2) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures") / "shades"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 6)):
        for label, level in (("dark", 60), ("bright", 190)):
            (root / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = rng.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                PIL.Image.fromarray(pixels).save(root / split / label / f"{index}.png")
    return root


class Follower:
    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[int, int]]] = {}
        self.figures: set[str] = set()

    def on_update(self, title: str, done: int, total: int, figures: dict[str, float]) -> None:
        self.seen.setdefault(title, []).append((done, total))
        self.figures |= figures.keys()


def test_a_network_given_as_an_object_becomes_integer_and_the_command_line_goes_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net, follower = classifier(), Follower()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    run = edgekd.compress(
        model=net,
        data=pictures,
        network={"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]},
        callbacks=[follower, edgekd.TensorBoardLogger(tmp_path / "events")],
        **QUICK,
    )
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert run.report is not None
    assert all(check.passed for check in run.report.checks)
    assert run.folder == Path("runs/shades-raspberry-pi")
    assert run.bundle is not None
    assert follower.seen["QAT"][-1] == (3, 3)
    assert {"loss", "img/s"} <= follower.figures
    assert list((tmp_path / "events").iterdir())
    (kept,) = run.folder.glob("sequential-*.pt2")

    again = edgekd.compress(model=classifier(), data=pictures, **_normalised(QUICK))
    assert again.folder == run.folder
    assert _events(run.folder) == {"skipped"}
    arguments = ["compress", "--recipe", str(run.folder / "recipe.yaml"), "--out", str(run.folder)]
    done = CliRunner().invoke(main, [*arguments, "--torch-device", "cpu"])
    assert done.exit_code == 0, done.output
    assert _events(run.folder) == {"skipped"}
    assert kept.exists()

    other = classifier()
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    changed = edgekd.compress(model=other, data=pictures, until="quantize", **_normalised(QUICK))
    assert changed.folder == Path("runs/shades-raspberry-pi-2")


def _normalised(options: dict) -> dict:
    return {**options, "network": {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}}


def _events(folder: Path, count: int = 6) -> set[str]:
    lines = (folder / "events.jsonl").read_text().splitlines()[-count:]
    return {json.loads(line)["event"] for line in lines}


def test_an_object_teaches_another_object(pictures: Path, tmp_path: Path) -> None:
    run = edgekd.compress(
        teacher=classifier(),
        student=nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(),
                              nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        data=pictures, out=tmp_path / "run", until="report", **QUICK,
    )  # fmt: skip
    assert run.report is not None
    assert {"teacher", "student", "int8-tflite"} <= {row.key for row in run.report.rows}
    assert len(list(run.folder.glob("*.pt2"))) == 2


def test_a_network_of_edgekds_own_is_kept_as_a_checkpoint(small_set: Path, tmp_path: Path) -> None:
    classes = edgekd.read_dataset(small_set).classes
    net = edgekd.create_model("edgedet-n0.5", classes=classes, height=64, width=64)
    options = {**QUICK, "input": {"height": 64, "width": 64}}
    run = edgekd.compress(
        model=net, student="same", data=small_set, out=tmp_path / "run", until="quantize", **options
    )
    (kept,) = run.folder.glob("edgedet-n0.5-*.safetensors")
    assert sha256_of(kept)[:12] in kept.name


def test_a_program_computes_what_the_network_computes_in_both_modes(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 4, 1))
    path = keep_program(net, (1, 3, 32, 32), tmp_path)
    assert keep_program(net, (1, 3, 32, 32), tmp_path) == path
    kept, x = load_program(path), torch.randn(3, 3, 32, 32)
    assert torch.equal(kept(x), net.eval()(x))
    trained = kept.train()(x)
    assert torch.allclose(trained, net.train()(x))
    assert not torch.equal(trained, kept.eval()(x))
    assert torch.allclose(kept(x), net.eval()(x), atol=1e-6)
    other = content_hash(exported(nn.Sequential(*net[:3]), (1, 3, 32, 32)))
    assert other[:12] not in path.name


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("evil-was-here",)


def _altered(path: Path, to: Path, member: str, change) -> Path:
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(to, "w") as other:
        for name in archive.namelist():
            content = archive.read(name)
            other.writestr(name, change(content) if name.endswith(member) else content)
    return to


@pytest.mark.parametrize(
    ("member", "change", "told"),
    [
        ("sample_inputs/model.pt", lambda _: pickle.dumps(Evil()), "pickled code"),
        (
            "models/model.json",
            lambda c: c.replace(b"torch.ops.aten.relu.default", b"torch.hub.load"),
            "the operator 'torch.hub.load'",
        ),
        (
            "models/model.json",
            lambda c: c.replace(b"Symbol(", b"__import__('os').system("),
            "the expression",
        ),
        (
            "model_weights_config.json",
            lambda c: c.replace(b'"use_pickle": false', b'"use_pickle": true'),
            "as something else than a plain tensor",
        ),
        (
            "model_constants_config.json",
            lambda _: b'{"config": {"x": {"path_name": "opaque_obj_0", "use_pickle": false}}}',
            "as something else than a plain tensor",
        ),
        ("models/model.json", lambda c: c[:100], "not a whole exported program"),
    ],
)
def test_a_program_that_could_run_code_is_refused(
    member: str, change, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = keep_program(classifier(), (1, 3, 32, 32), tmp_path)
    hostile = _altered(path, tmp_path / "hostile.pt2", member, change)
    with pytest.raises(ModelError, match=told):
        load_program(hostile)
    assert not Path("evil-was-here").exists()


def test_what_cannot_be_exported_or_followed_is_named(pictures: Path, tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match=r"Branching cannot be exported .* input of 1x3x32x32"):
        edgekd.compress(model=Branching(), data=pictures, out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="legal: an object with on_update"):
        edgekd.compress(model=classifier(), data=pictures, callbacks=[print], **QUICK)
    with pytest.raises(RecipeError, match="model or teacher"):
        edgekd.compress(model=classifier(), teacher=classifier(), data=pictures, **QUICK)


def test_mlflow_gets_every_figure_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[dict, int]] = []
    fake = types.ModuleType("mlflow")
    fake.log_metrics = lambda metrics, step: logged.append((metrics, step))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    logger = edgekd.MLflowLogger()
    logger.on_update("distill", 7, 10, {"loss": 1.5})
    logger.on_update("export", 1, 1, {})
    assert logged == [({"distill/loss": 1.5}, 7)]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(RecipeError, match="pip install mlflow-skinny"):
        edgekd.MLflowLogger()


def test_a_run_of_an_object_can_be_moved(pictures: Path, tmp_path: Path) -> None:
    run = edgekd.compress(
        model=classifier(), data=pictures, out=tmp_path / "here", until="quantize", **QUICK
    )
    shutil.move(run.folder, tmp_path / "there")
    recipe = tmp_path / "there" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("/here/", "/there/"))
    done = CliRunner().invoke(
        main,
        ["quantize", "--recipe", str(recipe), "--out", str(tmp_path / "there"),
         "--torch-device", "cpu"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert _events(tmp_path / "there", 3) == {"skipped"}
