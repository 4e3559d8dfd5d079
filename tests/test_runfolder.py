from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.errors import RunError
from edgekd.runfolder import RunFolder


class Work:
    """Counts how often it runs; dies on demand after half its output."""

    def __init__(self, *, dies: bool = False) -> None:
        self.runs, self.dies = 0, dies

    def __call__(self, folder: Path) -> None:
        self.runs += 1
        (folder / "a.txt").write_text("a")
        (folder / "checkpoint.pt").write_text("half-way")
        if self.dies:
            raise KeyboardInterrupt
        (folder / "b.txt").write_text("b")


def test_a_finished_stage_is_skipped_and_its_checkpoint_removed(tmp_path: Path) -> None:
    work = Work()
    for _ in range(2):
        with RunFolder(tmp_path) as run:
            folder = run.stage("one", {"x": 1}, work)
    assert work.runs == 1
    assert sorted(p.name for p in folder.iterdir()) == [
        "a.txt",
        "b.txt",
        "done.json",
        "inputs.json",
    ]


def test_other_inputs_start_the_stage_afresh(tmp_path: Path) -> None:
    work = Work()
    with RunFolder(tmp_path) as run:
        folder = run.stage("one", {"x": 1}, work)
        (folder / "left-over.txt").write_text("old")
        run.stage("one", {"x": 2}, work)
    assert work.runs == 2
    assert not (folder / "left-over.txt").exists()


@pytest.mark.parametrize("damage", ["change", "remove", "done"])
def test_a_damaged_stage_is_not_believed(tmp_path: Path, damage: str) -> None:
    work = Work()
    with RunFolder(tmp_path) as run:
        folder = run.stage("one", {}, work)
        if damage == "change":
            (folder / "a.txt").write_text("b")
        elif damage == "remove":
            (folder / "b.txt").unlink()
        else:
            (folder / "done.json").write_text('{"inputs": ')
        run.stage("one", {}, work)
    assert work.runs == 2


def test_an_interrupted_stage_keeps_its_checkpoint_for_the_same_inputs_only(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run, pytest.raises(KeyboardInterrupt):
        run.stage("one", {"x": 1}, Work(dies=True))
    assert not (tmp_path / "one" / "done.json").exists()
    seen = []
    with RunFolder(tmp_path) as run:
        run.stage("one", {"x": 1}, lambda f: seen.append((f / "checkpoint.pt").exists()))
        run.stage("one", {"x": 2}, lambda f: seen.append((f / "checkpoint.pt").exists()))
    assert seen == [True, False]


def test_only_one_process_holds_a_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path), pytest.raises(RunError, match="another edgekd process"):
        RunFolder(tmp_path)
    with RunFolder(tmp_path):
        pass


def test_events_say_what_happened(tmp_path: Path) -> None:
    for _ in range(2):
        with RunFolder(tmp_path) as run:
            run.stage("one", {}, Work())
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "finished", "skipped"]


def test_a_file_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunError, match="cannot be used"):
        RunFolder(tmp_path / "run")
