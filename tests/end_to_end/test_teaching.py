"""How the teacher's answers reach training, through the command line."""

from __future__ import annotations

from pathlib import Path

import safetensors.numpy
from click.testing import CliRunner

from edgekd.cli import main


def distilled(run: Path, small_set: Path, teacher_file: Path, *settings: str) -> dict[str, object]:
    """Returns the tensors of a student of three steps."""
    arguments = [
        "distill", "--target", "raspberry-pi", "--data", str(small_set),
        "--teacher", str(teacher_file), "--input", "64x96", "--steps", "3", "--batch-size", "8",
        "--out", str(run), "--torch-device", "cpu", *(f"--set={s}" for s in settings),
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
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
