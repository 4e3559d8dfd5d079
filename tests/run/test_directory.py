from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from edgekd.core.errors import RunError
from edgekd.run.directory import Asked, RunDirectory, default_folder


@dataclass(frozen=True)
class Step:
    name: str
    known: dict[str, Any]
    act: Callable[[Path], Any]

    def inputs(self) -> dict[str, Any]:
        return self.known

    def work(self, folder: Path) -> None:
        self.act(folder)


def step(inputs: dict[str, Any], work: Callable[[Path], Any]) -> Step:
    return Step("one", inputs, work)


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
        with RunDirectory(tmp_path) as run:
            folder = run.complete(step({"x": 1}, work))
    assert work.runs == 1
    assert sorted(p.name for p in folder.iterdir()) == [
        ".edgekd",
        "a.txt",
        "b.txt",
        "done.json",
        "inputs.json",
    ]


def test_other_inputs_start_the_stage_afresh_and_leave_what_others_put_there(
    tmp_path: Path,
) -> None:
    work = Work()
    notes = {"notes.txt", "figures/plot.txt", ".hidden"}
    with RunDirectory(tmp_path) as run:
        folder = run.complete(step({"x": 1}, work))
        (folder / "figures").mkdir()
        for name in notes:
            (folder / name).write_text("mine")
        (folder / "link").symlink_to(tmp_path / "elsewhere")

        def other(place: Path) -> None:
            assert not (place / "a.txt").exists()
            (place / "c.txt").write_text("c")

        run.complete(step({"x": 2}, other))
        run.discard("one")
    assert work.runs == 1
    left = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    assert left == {*notes, "link", ".edgekd"}
    assert all((folder / name).read_text() == "mine" for name in notes)


def test_a_kill_before_the_first_marker_or_while_a_stage_is_emptied_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f".{'0a' * 16}.tmp").write_text("half a marker")
    work = Work()

    def killed(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with RunDirectory(tmp_path) as run:
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / f".{'1b' * 16}.tmp").write_text("half a marker")
        folder = run.complete(step({"x": 1}, work))
        (folder / "notes.txt").write_text("mine")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                run.complete(step({"x": 2}, work))
        run.complete(step({"x": 2}, work))
    assert work.runs == 2
    assert (folder / "notes.txt").read_text() == "mine"


def test_an_interrupted_stage_keeps_what_lay_there_before(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        folder = run.complete(step({"x": 1}, Work()))
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(KeyboardInterrupt):
            run.complete(step({"x": 2}, Work(dies=True)))
        run.complete(step({"x": 3}, lambda _folder: None))
        done = json.loads((folder / "done.json").read_text())
    assert done["outputs"] == {}
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "a.txt").exists()


def test_a_folder_of_others_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "distill").mkdir()
    (tmp_path / "distill" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="'distill' and was not made by EdgeKD"):
        RunDirectory(tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["distill", "thesis.tex"]


def test_a_folder_of_others_inside_a_run_is_refused(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "thesis.tex").write_text("years of work")
        with pytest.raises(RunError, match="was not made by EdgeKD"):
            run.complete(step({}, Work()))
        with pytest.raises(RunError, match="was not made by EdgeKD"):
            run.discard("one")
    assert (tmp_path / "one" / "thesis.tex").read_text() == "years of work"


def test_a_run_of_a_version_without_markers_goes_on(tmp_path: Path) -> None:
    work = Work()
    with RunDirectory(tmp_path) as run:
        run.complete(step({"x": 1}, work))
    for marker in tmp_path.rglob(".edgekd"):
        marker.unlink()
    with RunDirectory(tmp_path) as run:
        run.complete(step({"x": 1}, work))
        run.complete(step({"x": 2}, work))
    assert work.runs == 2


@pytest.mark.parametrize("name", ["events.jsonl", ".lock", ".edgekd"])
def test_a_file_that_merely_goes_by_our_name_does_not_make_a_folder_ours(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("{}\n")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "inputs.json").write_text('{"hash": "x", "inputs": {}}')
    with pytest.raises(RunError, match="was not made by EdgeKD"):
        RunDirectory(tmp_path)


ASKED = Asked(command="compress", data="/data/boats", target="jetson", recipe="r1")


@pytest.mark.parametrize(
    "changed", [{"data": "/data/cars"}, {"target": "android"}, {"command": "train"}]
)
def test_a_run_on_other_data_is_not_overwritten(tmp_path: Path, changed: dict[str, str]) -> None:
    with RunDirectory(tmp_path, ASKED):
        pass
    with pytest.raises(RunError, match="holds a run of `edgekd compress` on /data/boats"):
        RunDirectory(tmp_path, replace(ASKED, **changed))
    with RunDirectory(tmp_path, ASKED) as same:
        assert same.continues
    with RunDirectory(tmp_path, replace(ASKED, recipe="r2")) as other:
        assert not other.continues


def test_runs_get_a_folder_of_their_own(tmp_path: Path) -> None:
    def place(asked: Asked) -> str:
        folder = default_folder(asked, tmp_path)
        with RunDirectory(folder, asked):
            return folder.name

    assert place(ASKED) == "boats-jetson"
    assert place(replace(ASKED, recipe="r2")) == "boats-jetson-2"
    assert place(replace(ASKED, data="/other/boats")) == "boats-jetson-3"
    assert place(replace(ASKED, recipe="r2")) == "boats-jetson-2"
    assert place(ASKED) == "boats-jetson"
    assert place(replace(ASKED, command="train")) == "boats-train"
    assert place(replace(ASKED, data="")) == "demo-jetson"
    assert place(replace(ASKED, data="/data/../a b;c")) == "a-b-c-jetson"
    (tmp_path / "cars-jetson").mkdir()
    (tmp_path / "cars-jetson" / "thesis.tex").write_text("years of work")
    assert place(replace(ASKED, data="/data/cars")) == "cars-jetson-2"


@pytest.mark.parametrize("damage", ["change", "remove", "done"])
def test_a_damaged_stage_is_not_believed(tmp_path: Path, damage: str) -> None:
    work = Work()
    with RunDirectory(tmp_path) as run:
        folder = run.complete(step({}, work))
        if damage == "change":
            (folder / "a.txt").write_text("b")
        elif damage == "remove":
            (folder / "b.txt").unlink()
        else:
            (folder / "done.json").write_text('{"inputs": ')
        run.complete(step({}, work))
    assert work.runs == 2


def test_an_interrupted_stage_keeps_its_checkpoint_for_the_same_inputs_only(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run, pytest.raises(KeyboardInterrupt):
        run.complete(step({"x": 1}, Work(dies=True)))
    assert not (tmp_path / "one" / "done.json").exists()
    seen = []
    with RunDirectory(tmp_path) as run:
        run.complete(step({"x": 1}, lambda f: seen.append((f / "checkpoint.pt").exists())))
        run.complete(step({"x": 2}, lambda f: seen.append((f / "checkpoint.pt").exists())))
    assert seen == [True, False]


def test_only_one_process_holds_a_run(tmp_path: Path) -> None:
    with RunDirectory(tmp_path), pytest.raises(RunError, match="another edgekd process"):
        RunDirectory(tmp_path)
    with RunDirectory(tmp_path):
        pass


def test_events_say_what_happened(tmp_path: Path) -> None:
    for _ in range(2):
        with RunDirectory(tmp_path) as run:
            run.complete(step({}, Work()))
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "finished", "skipped"]


def test_a_file_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunError, match="cannot be used"):
        RunDirectory(tmp_path / "run")
