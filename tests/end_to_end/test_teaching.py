"""How the teacher's answers reach training, through the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from click.testing import CliRunner, Result

from edgekd.cli import main

# A detector of the user's own, and one with other weights whose outputs have the same shapes.
MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 4, 1), nn.ReLU(), nn.MaxPool2d(2))
        self.heads = nn.ModuleList(nn.Conv2d(width, n, 1) for n in (1, 4, 4))

    def forward(self, x):
        x = self.body(x)
        return tuple(head(x) for head in self.heads)

def build(width=8):
    torch.manual_seed(width)
    return Net(width)

def small():
    return build(4)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "my_model.py"
    path.write_text(MODEL)
    return path


def edgekd(command: str, run: Path, data: Path, *more: str | Path) -> Result:
    """Three steps of whatever the command trains."""
    arguments = [
        command, "--target", "raspberry-pi", "--data", data, "--input", "64x96", "--steps", "3",
        "--batch-size", "8", "--out", run, "--torch-device", "cpu", *more,
    ]  # fmt: skip
    return CliRunner().invoke(main, [str(a) for a in arguments])


def distilled(run: Path, small_set: Path, teacher_file: Path, *settings: str) -> dict[str, object]:
    """Returns the tensors of a student of three steps."""
    sets = [f"--set={s}" for s in settings]
    result = edgekd("distill", run, small_set, "--teacher", teacher_file, *sets)
    assert result.exit_code == 0, result.output
    return safetensors.numpy.load_file(run / "distill" / "student.safetensors")


def test_runs_with_other_seeds_share_what_the_teacher_said(
    small_set: Path, teacher_file: Path, tmp_path: Path
) -> None:
    cached = ("teacher.cache_views=2", f"teacher.cache={tmp_path / 'cache'}")
    first = distilled(tmp_path / "a", small_set, teacher_file, "seed=1", *cached)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    second = distilled(tmp_path / "b", small_set, teacher_file, "seed=2", *cached)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    assert before
    assert after == before
    assert any((first[name] != second[name]).any() for name in first)


def terms(run: Path) -> set[str]:
    """The terms of the loss that a student learnt by."""
    curve = json.loads((run / "distill" / "curve.json").read_text())
    return {key for key in curve[0] if key.startswith("term/")}


def test_a_detector_of_ones_own_teaches_by_its_boxes(
    model: Path, small_set: Path, tmp_path: Path
) -> None:
    own = ("--teacher", f"{model}:build")
    unexplained = edgekd("distill", tmp_path / "run", small_set, *own)
    assert unexplained.exit_code == 2
    assert "network.decoder says what" in unexplained.output
    decoder = "--set=network.decoder=fastestdet-raw"
    result = edgekd("distill", tmp_path / "run", small_set, *own, decoder)
    assert result.exit_code == 0, result.output
    assert "term/kd/teacher-boxes" in terms(tmp_path / "run")


def test_teachers_of_two_kinds_both_teach(
    model: Path, small_set: Path, teacher_file: Path, tmp_path: Path
) -> None:
    for first, second in ((teacher_file, f"{model}:build"), (f"{model}:build", teacher_file)):
        run = tmp_path / f"{Path(first).stem}-first"
        both = ("--teacher", first, "--teacher", second, "--set=network.decoder=fastestdet-raw")
        methods = "--set=distill.methods={logits: 1, crosskd: 1, teacher-boxes: 1}"
        result = edgekd("distill", run, small_set, *both, methods)
        assert result.exit_code == 0, result.output
        assert terms(run) >= {"term/kd/logits", "term/kd/crosskd", "term/kd/teacher-boxes"}


def test_a_student_of_ones_own_learns_from_one_of_ones_own(
    model: Path, small_set: Path, tmp_path: Path
) -> None:
    both = ("--student", f"{model}:small", "--teacher", f"{model}:build")
    result = edgekd("distill", tmp_path / "run", small_set, *both)
    assert result.exit_code == 0, result.output
    assert terms(tmp_path / "run") == {"term/kd/raw-outputs"}


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("train", (), "learns from a teacher alone"),
        ("distill", ("--baseline",), "learns from a teacher alone"),
        ("distill", ("--set=distill.methods={}",), "learns from a teacher alone"),
        (
            "distill",
            ("--set=distill.methods={logits: 1}",),
            "the student's dense-predictions",
        ),
    ],
)
def test_what_a_detector_of_ones_own_cannot_learn_is_said_before_anything_is_trained(
    model: Path, small_set: Path, teacher_file: Path, tmp_path: Path,
    command: str, more: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    teacher = () if command == "train" else ("--teacher", teacher_file)
    student = ("--student", f"{model}:small")
    result = edgekd(command, tmp_path / "run", small_set, *student, *teacher, *more)
    assert result.exit_code == 2
    assert said in result.output
    assert not list((tmp_path / "run").glob("*/inputs.json"))


def test_a_recipe_without_annotation_loss_still_has_a_baseline(
    small_set: Path, teacher_file: Path, tmp_path: Path
) -> None:
    alone = ("--set=distill.task_weight=0", "--teacher", teacher_file)
    result = edgekd("distill", tmp_path / "run", small_set, *alone, "--baseline")
    assert result.exit_code == 0, result.output
    assert all(term.startswith("term/kd/") for term in terms(tmp_path / "run"))
    assert (tmp_path / "run" / "baseline" / "student.safetensors").exists()


def test_another_file_of_the_same_weights_is_another_teacher(
    model: Path, small_set: Path, tmp_path: Path
) -> None:
    own = ("--teacher", f"{model}:build", "--set=network.decoder=fastestdet-raw")
    stages = []
    for text in (MODEL, MODEL, MODEL.replace("nn.ReLU()", "nn.ReLU6()")):
        model.write_text(text)
        assert edgekd("distill", tmp_path / "run", small_set, *own).exit_code == 0
        events = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
        stages.append(json.loads(events[-1])["event"])
    assert stages == ["finished", "skipped", "finished"]


def test_what_only_shapes_the_speed_repeats_nothing(small_set: Path, tmp_path: Path) -> None:
    alone = ("--set=distill.methods={}", "--student", "edgedet-n0.75")
    assert edgekd("distill", tmp_path / "run", small_set, *alone).exit_code == 0
    faster = ("--set=distill.training.workers=0", "--set=distill.training.checkpoint_s=7")
    assert edgekd("distill", tmp_path / "run", small_set, *alone, *faster).exit_code == 0
    events = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in events] == ["started", "finished", "skipped"]


def with_val(small_set: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    """Returns a copy of the set whose val file is changed."""
    shutil.copytree(small_set, folder)
    path = folder / "annotations" / "val.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return folder


def test_a_split_to_judge_by_without_an_object_is_refused_first(
    small_set: Path, tmp_path: Path
) -> None:
    data = with_val(small_set, tmp_path / "set", lambda document: document["annotations"].clear())
    result = edgekd("distill", tmp_path / "run", data, "--set=distill.methods={}")
    assert result.exit_code == 2
    assert "no object is annotated in the 8 images of split 'val'" in result.output


def test_a_val_file_with_its_classes_in_another_order_judges_the_same(
    small_set: Path, tmp_path: Path
) -> None:
    def renumber(document: Any) -> None:
        for category in document["categories"]:
            category["id"] = 100 - category["id"]
        for annotation in document["annotations"]:
            annotation["category_id"] = 100 - annotation["category_id"]

    other = with_val(small_set, tmp_path / "set", renumber)
    found = []
    for name, data in (("a", small_set), ("b", other)):
        result = edgekd("train", tmp_path / name, data)
        assert result.exit_code == 0, result.output
        found.append([line for line in result.output.splitlines() if "map" in line])
    assert found[0]
    assert found[0] == found[1]
