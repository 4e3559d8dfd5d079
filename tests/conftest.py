"""Shared real things, small: a rendered data set, a teacher, and one whole run of the path."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; one thread each keeps them from standing in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekd.data.demo.render import CLASSES, write_demo_set


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever looks at the shared run goes to one worker, so that it is made once.

    A slow proof has twenty minutes: it is there to be right, and a busy machine takes four times
    as long as an idle one.
    """
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(1200))
        if "finished_run" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("run"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """EdgeKD works offline; a test that reaches for the network must fail."""

    connect = socket.socket.connect

    def refuse(opened: socket.socket, address: object) -> None:
        if opened.family != socket.AF_UNIX:  # Worker processes talk through those.
            raise AssertionError(f"a test tried to open a network connection to {address}")
        connect(opened, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """What a test keeps for its user, no other test and no user sees."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "no-such-folder"))


@pytest.fixture
def system_files(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Writes what another machine's system says of it, and returns the root of that."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


SSH = """#!/bin/sh
echo "ssh $*" >> "$LOG"
while [ "$1" != -- ]; do shift; done
shift 2
cd "$BOARD" && exec sh -c "$1"
"""
SCP = """#!/bin/sh
echo "scp $*" >> "$LOG"
while [ "$1" != -- ]; do shift; done
shift
for last; do :; done
destination="${last#*:}"
while [ $# -gt 1 ]; do cp -r "${1#*:}" "$destination" || exit 1; shift; done
"""
MKTEMP = """#!/bin/sh
mkdir "$BOARD/job" && echo "$BOARD/job"
"""


class Board:
    """A board that is this machine, reached through programs that pass for ssh and scp."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.home = folder / "bin", folder / "home"
        self.log = folder / "log"
        self.programs.mkdir()
        self.home.mkdir()
        self.install("ssh", SSH)
        self.install("scp", SCP)
        self.install("mktemp", MKTEMP)
        self.install("python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')

    def install(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    @property
    def commands(self) -> list[str]:
        return self.log.read_text().splitlines()

    @property
    def leftovers(self) -> list[Path]:
        return list(self.home.iterdir())


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    (tmp_path / "board").mkdir()
    board = Board(tmp_path / "board")
    monkeypatch.setenv("PATH", f"{board.programs}:/usr/bin:/bin")
    monkeypatch.setenv("BOARD", str(board.home))
    monkeypatch.setenv("LOG", str(board.log))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return board


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, or a skip that says how to get it."""
    folder = os.environ.get("EDGEKD_DATA")
    if not folder:
        pytest.skip("EDGEKD_DATA is not set: no real data sets on this machine")
    return Path(folder)


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rendered training and eight validation images in COCO layout."""
    return write_demo_set(tmp_path_factory.mktemp("data") / "set", train=12, val=8)


@pytest.fixture(scope="session")
def boats(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a class that no shipped teacher knows."""
    other = tmp_path_factory.mktemp("boats") / "set"
    shutil.copytree(small_set, other)
    for split in ("train", "val"):
        path = other / "annotations" / f"{split}.json"
        document = json.loads(path.read_text())
        document["categories"][0]["name"] = "boat"
        path.write_text(json.dumps(document))
    return other


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that has learnt nothing: wider and deeper than the student."""
    from edgekd.nets.card import Card, build, save_net

    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    card = Card(architecture="edgedet-s", classes=CLASSES, height=96, width=128)
    save_net(path, build(card, seed=3), card)
    return path


@dataclass(frozen=True)
class FinishedRun:
    """A run of the whole path and the arguments that made it."""

    folder: Path
    arguments: list[str]


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, small_set: Path, teacher_file: Path
) -> FinishedRun:
    """The command line's own `compress`, a handful of steps, for a board with affine int8."""
    from click.testing import CliRunner

    from edgekd.cli import main

    folder = tmp_path_factory.mktemp("run") / "run"
    arguments = [
        "compress", "--target", "raspberry-pi", "--data", str(small_set),
        "--teacher", str(teacher_file), "--input", "96x128", "--steps", "6", "--qat-steps", "4",
        "--batch-size", "4", "--baseline", "--out", str(folder), "--torch-device", "cpu",
        "--set", "export.proof_images=4", "--set", "benchmark.bootstrap=100",
        "--set", "benchmark.runs=50", "--set", "benchmark.seconds=0",
        "--set", "quantize.calibration_images=8",
        "--set", "report.visualisations=2", "--set", "student.strides=[8,16]",
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return FinishedRun(folder, arguments)
