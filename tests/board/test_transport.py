from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.board.transport import on_this_computer, over_adb, over_ssh
from edgekd.core.errors import RunError

ODD = "it's $(touch sprung); a file"
PLACES = {"here": on_this_computer, "ssh": lambda: over_ssh("pi@board")}


@pytest.mark.parametrize("place", PLACES)
def test_a_program_runs_beside_what_was_pushed(board, tmp_path: Path, place: str) -> None:
    (tmp_path / ODD).write_text("content")
    with PLACES[place]() as work:
        work.push(tmp_path / ODD)
        assert work.run(["cat", ODD]).stdout == "content"
        work.run(["cp", ODD, "back"])
        work.pull("back", tmp_path / "pulled")
    assert (tmp_path / "pulled").read_text() == "content"
    assert not list(tmp_path.rglob("sprung"))
    assert board.leftovers == []


def test_another_python_of_the_board_is_found_in_its_home(board, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(board.home))
    python = board.home / "my venv" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "asked: $1"\n')
    python.chmod(0o755)
    with over_ssh("pi@board", "~/my venv/python") as work:
        assert work.run([work.python, "~/a file; ls"]).stdout == "asked: ~/a file; ls\n"


@pytest.mark.parametrize("place", PLACES)
def test_what_a_program_ends_with_is_said(board, place: str) -> None:
    with PLACES[place]() as work:
        with pytest.raises(RunError, match=r"failed \(3\): broken"):
            work.run(["sh", "-c", "echo broken >&2; exit 3"])
        assert work.run(["sh", "-c", "exit 3"], accepted=(3,)).returncode == 3


def test_a_program_that_hangs_is_left(board) -> None:
    with on_this_computer() as work, pytest.raises(RunError, match=r"sleep took longer than 0\.1"):
        work.run(["sleep", "20"], timeout_s=0.1)


def test_adb_speaks_to_one_device_by_lists_and_clears_its_folder(board, tmp_path: Path) -> None:
    board.install("adb", '#!/bin/sh\necho "$@" >> "$LOG"\n[ "$4" = -n ] || exit 0\n'
                  'case "$5" in mktemp*) echo /data/local/tmp/job;; esac\n')  # fmt: skip
    with over_adb("emulator-5554") as work:
        work.push(tmp_path)
        work.run(["./benchmark_model", "--graph=a b.tflite"])
    assert board.commands == [
        "-s emulator-5554 shell -n mktemp -d -p /data/local/tmp",
        f"-s emulator-5554 push {tmp_path} /data/local/tmp/job/",
        "-s emulator-5554 shell -n cd /data/local/tmp/job && ./benchmark_model "
        "'--graph=a b.tflite'",
        "-s emulator-5554 shell -n rm -rf /data/local/tmp/job",
    ]


@pytest.mark.parametrize("answer", ["/data/local/tmp/../../system", "/etc", ""])
def test_a_device_with_an_odd_folder_is_refused(board, answer: str) -> None:
    board.install("adb", f"#!/bin/sh\necho '{answer}'\n")
    with pytest.raises(RunError, match="mktemp -d answered"), over_adb():
        pass


def test_a_device_that_is_not_there_is_said_in_adbs_words(board) -> None:
    board.install("adb", "#!/bin/sh\necho 'error: no devices/emulators found' >&2; exit 1\n")
    with pytest.raises(RunError, match="no devices/emulators found"), over_adb():
        pass


@pytest.mark.parametrize("serial", ["-s", ""])
def test_a_serial_that_would_be_an_option_is_refused(serial: str) -> None:
    with pytest.raises(RunError, match="legal: one that `adb devices` lists"), over_adb(serial):
        pass


def test_a_missing_adb_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="adb is not installed here: install Android's"), over_adb():
        pass
