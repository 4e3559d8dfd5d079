"""The exported files on aarch64: an emulated board, behind a real sshd, through the real ssh.

Only where ``EDGEKD_EMULATED_BOARD`` names a root that ``make_board.py`` made; needs root.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgekd.board.transport import over_ssh
from edgekd.bundle.verify import verify
from edgekd.cli import main
from edgekd.measure.on_board import BoardCompute
from edgekd.modelfile.runner import open_runner

ROOT = Path(os.environ.get("EDGEKD_EMULATED_BOARD", "/nonexistent"))
pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(
        not (ROOT / "usr/bin/python3").exists(),
        reason="EDGEKD_EMULATED_BOARD names no root of make_board.py",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="an emulated board needs root"),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yields a host that the system's ssh reaches: a root of its own, all programs aarch64."""
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        f"ChrootDirectory {ROOT}\nSubsystem sftp internal-sftp\n"
    )
    (folder / "ssh_config").write_text(
        f"Host emulated\n HostName 127.0.0.1\n Port {port}\n User root\n"
        f" IdentityFile {folder}/user\n StrictHostKeyChecking no\n"
        f" UserKnownHostsFile {folder}/known\n LogLevel ERROR\n"
    )
    programs = folder / "bin"
    programs.mkdir()
    for name in ("ssh", "scp"):
        real = shutil.which(name)
        (programs / name).write_text(f'#!/bin/sh\nexec {real} -F {folder}/ssh_config "$@"\n')
        (programs / name).chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    mounts = [ROOT / name for name in ("proc", "dev", "sys")]
    for point in mounts:
        subprocess.run(["mount", "--bind", f"/{point.name}", point], check=True)
    command = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"]
    log = (folder / "log").open("w")
    daemon = subprocess.Popen(command, stderr=log)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{programs}:{path}"
    try:
        for _ in range(50):
            done = subprocess.run(
                ["ssh", "emulated", "uname", "-m"], capture_output=True, text=True
            )
            if done.returncode == 0:
                break
            time.sleep(0.2)
        assert done.stdout.strip() == "aarch64", done.stderr + (folder / "log").read_text()
        yield "emulated"
    finally:
        os.environ["PATH"] = path
        daemon.terminate()
        daemon.wait()
        log.close()
        for point in mounts:
            subprocess.run(["umount", "-l", point], check=True)


def files(run) -> dict[str, Path]:
    return {path.name: path for path in (run.folder / "export").glob("*.*")}


@pytest.mark.parametrize("name", ["int8.tflite", "int8.onnx", "float.tflite", "float.onnx"])
def test_aarch64_computes_what_this_computer_computes(finished_run, host: str, name: str) -> None:
    path = files(finished_run)[name]
    runner = open_runner(path)
    rng = np.random.default_rng(0)
    if np.dtype(runner.input.dtype) == np.int8:
        images = [rng.integers(-128, 128, runner.input.shape).astype(np.int8) for _ in range(3)]
    else:
        images = [rng.normal(0, 0.5, runner.input.shape).astype(np.float32) for _ in range(3)]
    with over_ssh(host) as work:
        there = BoardCompute(work, path, threads=1)(images)
    differences = [
        np.abs(one.astype(np.float64) - other.astype(np.float64))
        for image, outputs in zip(images, there, strict=True)
        for one, other in zip(runner.run(image), outputs, strict=True)
    ]
    worst = max(float(d.max()) for d in differences)
    unequal = float(np.mean(np.concatenate([d.ravel() for d in differences]) > 0))
    print(f"{name}: largest difference {worst:g}, unequal {unequal:.2%}", file=sys.stderr)
    if name == "int8.tflite":
        assert worst <= 2  # Steps; two desktop runtimes differ by as much.
    else:
        scale = max(float(np.abs(out).max()) for out in runner.run(images[0]))
        assert worst <= 0.05 * scale


def test_the_bundle_is_verified_there(finished_run, host: str) -> None:
    (bundle,) = (p.parent for p in finished_run.folder.glob("bundle/*/manifest.json"))
    found = verify(bundle, host)
    print(json.dumps(found)[:2000], file=sys.stderr)
    assert found["passed"]


def test_bench_and_eval_run_there_whole(finished_run, small_set: Path, host: str) -> None:
    path = files(finished_run)["int8.tflite"]
    timed = CliRunner().invoke(
        main, ["bench", str(path), "--host", host, "--runs", "50", "--seconds", "0"],
        catch_exceptions=False,
    )  # fmt: skip
    print(timed.output, file=sys.stderr)
    assert timed.exit_code == 0, timed.output
    assert "tflite-runtime 2.14.0" in timed.output
    scored = CliRunner().invoke(
        main, ["eval", str(path), "--data", str(small_set), "--host", host], catch_exceptions=False
    )
    print(scored.output, file=sys.stderr)
    assert scored.exit_code == 0, scored.output
