"""Nothing leaves the machine, and nothing is written but where the documentation says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STRACE = shutil.which("strace")


def edgekd(folder: Path, *arguments: str | Path) -> list[str]:
    """Runs a command with a home of its own; returns the connections that it tried to open."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    keep = ("PATH", "LANG", "OMP_NUM_THREADS", "TMPDIR")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    traced = [STRACE, "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(folder / "calls")]
    done = subprocess.run(
        [*(traced if STRACE else []), sys.executable, "-m", "edgekd", *map(str, arguments)],
        cwd=folder, env={**environment, "HOME": str(home)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (folder / "calls").read_text().splitlines() if STRACE else []
    return [line for line in calls if re.search(r"AF_INET|AF_INET6", line)]


def written(home: Path) -> set[str]:
    """Returns what lies in a home folder, two levels deep."""
    return {"/".join(p.relative_to(home).parts[:2]) for p in home.rglob("*") if p.is_file()}


def test_commands_on_files_write_nothing_into_the_home_and_call_nobody(
    finished_run, small_set: Path, tmp_path: Path
) -> None:
    run = finished_run.folder
    model = run / "export" / "int8.onnx"
    bundle = next(run.glob("bundle/*/manifest.json")).parent
    calls: list[str] = []
    for command in (
        ("eval", model, run / "export" / "int8.tflite", "--data", small_set),
        ("bench", model, "--seconds", "0"),
        ("predict", model, small_set / "val"),
        ("inspect", model),
        ("verify", bundle),
        ("devices",),
        ("init", small_set),
    ):
        calls += edgekd(tmp_path, *command)
    assert calls == []
    assert written(tmp_path / "home") == set()


def test_a_report_writes_nothing_but_the_cache_that_is_documented(
    finished_run, tmp_path: Path
) -> None:
    shutil.copytree(finished_run.folder, tmp_path / "run")
    assert edgekd(tmp_path, "report", "run") == []
    # fontconfig keeps its own cache where the system's may not be written.
    assert written(tmp_path / "home") <= {".cache/edgekd", ".cache/fontconfig"}


@pytest.mark.slow
def test_the_whole_path_writes_nothing_but_the_cache_and_calls_nobody(
    finished_run, tmp_path: Path
) -> None:
    arguments = list(finished_run.arguments)
    arguments[arguments.index("--out") + 1] = str(tmp_path / "run")
    assert edgekd(tmp_path, *arguments) == []
    assert written(tmp_path / "home") <= {".cache/edgekd", ".cache/fontconfig"}


@pytest.mark.skipif(STRACE is None, reason="strace is not installed: connections go unseen")
def test_a_connection_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "edgekd").mkdir()
    (tmp_path / "edgekd" / "__main__.py").write_text(
        "import socket\ns = socket.socket()\ns.setblocking(False)\ns.connect_ex(('127.0.0.1', 9))\n"
    )
    (tmp_path / "edgekd" / "__init__.py").touch()
    assert any("127.0.0.1" in call for call in edgekd(tmp_path))
