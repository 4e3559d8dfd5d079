"""Bad input: one clear line with the value and what would be legal, exit code 2, nothing left."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from edgekd.cli import main


def edgekd(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    for part in parts:
        assert part in result.output


def arguments(small_set: Path, teacher_file: Path, out: Path) -> list[str | Path]:
    return [
        "compress", "--data", small_set, "--teacher", teacher_file, "--input", "96x128",
        "--steps", "1", "--qat-steps", "1", "--out", out, "--torch-device", "cpu",
    ]  # fmt: skip


@dataclass(frozen=True)
class Case:
    name: str
    extra: tuple[str, ...]
    parts: tuple[str, ...]


CASES = [
    Case("unknown target", ("--target", "jetsn"), ("'jetsn'", "did you mean 'jetson'")),
    Case("missing folder", ("--data", "/nowhere/set"), ("/nowhere/set", "no such data set")),
    Case("unknown recipe key", ("--set", "distil.steps=3"), ("distil", "did you mean 'distill'")),
    Case("wrong type", ("--set", "seed=many"), ("seed", "many", "whole number")),
    Case("illegal value", ("--set", "quantize.mode=int4"), ("int4", "ptq, qat")),
    Case("malformed setting", ("--set", "seed"), ("KEY=VALUE",)),
    Case("input not a multiple of 32", ("--input", "100x128"), ("100", "multiple of the student")),
    Case("malformed input size", ("--input", "96"), ("HEIGHTxWIDTH",)),
    Case("unknown architecture", ("--student", "edgedet-x"), ("edgedet-x", "edgedet-n")),
    Case("classifier for a detection set", ("--student", "edgecls-n"), ("edgecls-n", "edgedet-n")),
    Case("unknown method", ("--set", "distill.methods={pdk: 1.0}"), ("pdk", "did you mean 'pkd'")),
    Case("int8 on a board without it", ("--target", "jetson-nano"), ("jetson-nano", "int8")),
    Case("pickled teacher", ("--teacher", "teacher.pth"), ("teacher.pth", "safetensors")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_wrong_argument_is_one_clear_line_and_leaves_no_result(
    small_set: Path, teacher_file: Path, tmp_path: Path, case: Case
) -> None:
    out = tmp_path / "run"
    refused(edgekd(*arguments(small_set, teacher_file, out), *case.extra), *case.parts)
    assert not list(out.rglob("done.json"))
    assert not list(out.rglob("*.onnx"))


def test_an_unknown_key_in_a_recipe_file_names_file_and_key(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("target: jetson\nquantise: {mode: qat}\n")
    refused(edgekd("compress", "--recipe", recipe), "r.yaml", "quantise", "did you mean 'quantize'")


def test_a_recipe_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("target: !!python/object/apply:os.system ['true']\n")
    refused(edgekd("compress", "--recipe", recipe), "r.yaml")


def test_a_data_set_without_annotations_is_refused(
    small_set: Path, teacher_file: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(small_set / "train", bare / "images")
    command = [*arguments(small_set, teacher_file, tmp_path / "run"), "--data", bare]
    refused(edgekd(*command), str(bare))


def test_a_corrupt_image_is_reported_and_under_strict_refused(
    small_set: Path, teacher_file: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "set"
    shutil.copytree(small_set, broken)
    victim = sorted((broken / "train").glob("*.png"))[3]
    victim.write_bytes(b"not an image")
    command = [*arguments(small_set, teacher_file, tmp_path / "run"), "--data", broken, "--strict"]
    refused(edgekd(*command), victim.name)


def test_a_teacher_of_other_classes_is_refused(
    boats: Path, teacher_file: Path, tmp_path: Path
) -> None:
    command = arguments(boats, teacher_file, tmp_path / "run")
    refused(edgekd(*command), "boat", "edgekd train")


def test_own_data_without_a_teacher_says_how_to_get_one(boats: Path, tmp_path: Path) -> None:
    refused(edgekd("compress", "--data", boats, "--out", tmp_path / "r"), "edgekd train")


@pytest.mark.parametrize("command", ["inspect", "bench", "eval"])
@pytest.mark.parametrize("name", ["int8.onnx", "int8.tflite"])
def test_a_truncated_model_file_is_refused(
    finished_run, small_set: Path, tmp_path: Path, name: str, command: str
) -> None:
    whole = (finished_run.folder / "export" / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) // 2])
    extra = ["--data", small_set] if command == "eval" else []
    refused(edgekd(command, path, *extra), name)


def test_a_run_directory_in_use_is_refused(
    small_set: Path, teacher_file: Path, tmp_path: Path
) -> None:
    from edgekd.run.directory import RunDirectory

    with RunDirectory(tmp_path / "run"):
        command = arguments(small_set, teacher_file, tmp_path / "run")
        refused(edgekd(*command), "another edgekd process")


def test_a_pickled_checkpoint_runs_no_code(small_set: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (Path.write_text, (tmp_path / "ran", "code"))  # type: ignore[return-value]

    torch.save({"model": Bomb()}, tmp_path / "net.safetensors")
    refused(edgekd("eval", tmp_path / "net.safetensors", "--data", small_set), "net.safetensors")
    assert not (tmp_path / "ran").exists()


def test_predict_without_images_says_so(finished_run, tmp_path: Path) -> None:
    path = finished_run.folder / "export" / "int8.tflite"
    refused(
        edgekd("predict", path, tmp_path / "nothing.png", "--out", tmp_path / "o"), "nothing.png"
    )
    assert not (tmp_path / "o").exists()
