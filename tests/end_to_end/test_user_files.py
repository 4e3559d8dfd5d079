"""Nothing of the user's is touched: what lies in a folder stays, what is read is not written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekd.cli import main


def edgekd(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.output


@pytest.fixture
def image_folders(tmp_path: Path, small_set: Path) -> Path:
    """A classifier's set, whose folders go by the names of stages."""
    images = sorted((small_set / "train").glob("*.png"))
    for split in ("train", "val"):
        for name, image in zip(("bus", "car"), images, strict=False):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            shutil.copy(image, folder)
    return tmp_path / "set"


@pytest.mark.parametrize("out", [".", "..", "val", "val/deep/er", "./x/../train/bus"])
def test_a_run_directory_may_not_overlap_the_data(image_folders: Path, out: str) -> None:
    before = snapshot(image_folders.parent)
    result = edgekd("train", "--data", image_folders, "--out", image_folders / out, "--steps", "1")
    refused(result, "overlaps data.path", "--out")
    assert snapshot(image_folders.parent) == before


def test_a_link_to_the_data_is_the_data(image_folders: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image_folders)
    before = snapshot(image_folders)
    result = edgekd("train", "--data", image_folders, "--out", tmp_path / "link" / "run")
    refused(result, "overlaps data.path")
    assert snapshot(image_folders) == before


def test_a_run_directory_may_not_hold_what_the_run_reads(
    small_set: Path, teacher_file: Path, tmp_path: Path
) -> None:
    shutil.copy(teacher_file, tmp_path / "teacher.safetensors")
    command = ("compress", "--data", small_set, "--teacher", tmp_path / "teacher.safetensors")
    refused(edgekd(*command, "--out", tmp_path), "holds teacher")
    (tmp_path / "more").mkdir()
    command = ("compress", "--data", small_set, "--teacher", teacher_file)
    unlabelled = ("--unlabelled", tmp_path / "more", "--out", tmp_path / "more" / "run")
    refused(edgekd(*command, *unlabelled), "overlaps data.unlabelled")


@pytest.mark.parametrize("command", ["compress", "train", "distill", "quantize", "export"])
def test_a_folder_of_the_users_is_refused_as_a_run_directory(
    small_set: Path, teacher_file: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "proj" / "distill").mkdir(parents=True)
    (tmp_path / "proj" / "distill" / "thesis.tex").write_text("years of work")
    before = snapshot(tmp_path)
    source = () if command == "train" else ("--teacher", teacher_file)
    result = edgekd(command, "--data", small_set, *source, "--out", tmp_path / "proj")
    refused(result, "proj", "'distill'", "was not made by EdgeKD")
    assert snapshot(tmp_path) == before


def test_predictions_go_into_no_folder_of_the_users(
    finished_run, small_set: Path, tmp_path: Path
) -> None:
    (tmp_path / "detections.json").write_text("mine")
    model = finished_run.folder / "export" / "int8.tflite"
    refused(edgekd("predict", model, small_set / "val", "--out", tmp_path), "detections.json")
    assert snapshot(tmp_path) == {"detections.json": b"mine"}
    for _ in range(2):
        again = edgekd("predict", model, small_set / "val", "--out", tmp_path / "new")
        assert again.exit_code == 0, again.output


def test_a_bundle_replaces_nothing_but_a_bundle(finished_run, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "manifest.json").write_text(json.dumps({"files": {"app.js": {}}}))
    (site / "app.js").write_text("mine")
    (site / "thesis.tex").write_text("years of work")
    before = snapshot(site)
    refused(edgekd("bundle", finished_run.folder, "--out", site), "'thesis.tex'")
    assert snapshot(site) == before


def test_a_run_on_other_data_is_not_overwritten(
    finished_run, boats: Path, teacher_file: Path
) -> None:
    before = snapshot(finished_run.folder)
    result = edgekd(
        "compress", "--target", "raspberry-pi", "--data", boats, "--teacher", teacher_file,
        "--out", finished_run.folder,
    )  # fmt: skip
    refused(result, "holds a run of `edgekd compress`", str(boats), "name another folder")
    assert snapshot(finished_run.folder) == before
