"""Replays a bundle's golden vectors, here or on a board that ssh reaches."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import edgekd
from edgekd.bundle.manifest import MANIFEST
from edgekd.errors import RunError
from edgekd.modelfile.memory import try_out
from edgekd.replay import BundleError, read_manifest, replay

TIMEOUT_S = 600
"""Longest that one step on a board may take."""

# Never a question on the terminal: it would be asked once a step, and hang a script.
_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15")
_NO_CONNECTION = 255
_NOT_FOUND = 127

_logger = logging.getLogger(__name__)


def verify(bundle: Path, host: str | None = None) -> dict[str, Any]:
    """Returns what `edgekd.replay.replay` returns: ``passed``, and for each file what was measured.

    The code that runs is always this package's and never the bundle's copy of it, because a bundle
    may come from anywhere.

    Args:
        bundle: The folder.
        host: Where to run, as ``ssh`` takes it, such as ``pi@192.168.1.20``; None for here. It
            needs python3 with numpy and a runtime. Whatever is copied there is removed.

    Raises:
        RunError: The bundle is unreadable, no file in it can be run there, or the host is out of
            reach or lacks something.
        ModelError: A file in it crashes its runtime here.
    """
    try:
        if host is not None:
            return _on_host(bundle, host)
        for name in read_manifest(bundle):
            if name.endswith((".onnx", ".tflite")):
                try_out(bundle / name)
        return replay(bundle)
    except BundleError as unusable:
        raise RunError(str(unusable)) from unusable


def _on_host(bundle: Path, host: str) -> dict[str, Any]:
    if host.startswith("-") or not host:
        raise RunError(f"host {host!r}; legal: a host as ssh takes it, such as pi@192.168.1.20")
    with tempfile.TemporaryDirectory() as staged:
        _stage(bundle, Path(staged))
        remote = _remote_folder(host)
        try:
            # Absolute, so that no file name passes for an option or for a host.
            sources = [str(path) for path in sorted(Path(staged).resolve().iterdir())]
            _run(host, ["scp", "-q", "-r", *_OPTIONS, "--", *sources, f"{host}:{remote}/"])
            return _replay_there(host, remote)
        finally:
            _remove(host, remote)


def _stage(bundle: Path, staged: Path) -> None:
    """Copies what the manifest lists and nothing else: scp would follow a link to anywhere."""
    for name in [MANIFEST, *read_manifest(bundle)]:
        copy = staged / "bundle" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / name, copy)
    for name in ("replay.py", "decoder.py"):
        shutil.copyfile(Path(edgekd.__file__).with_name(name), staged / name)


def _remote_folder(host: str) -> str:
    folder = _ssh(host, "mktemp -d").stdout.strip()
    if not re.fullmatch(r"/[\w./-]+", folder):
        raise RunError(f"{host}: mktemp -d answered {folder!r}; legal: one absolute path")
    return folder


def _replay_there(host: str, remote: str) -> dict[str, Any]:
    where = shlex.quote(remote)
    found = _ssh(host, f"cd {where} && python3 replay.py bundle --json", accepted=(0, 1))
    try:
        result: dict[str, Any] = json.loads(found.stdout)
    except ValueError as broken:
        raise RunError(f"{host}: replay.py returned no result: {_last_line(found)}") from broken
    return result


def _remove(host: str, remote: str) -> None:
    """Removes the folder on the host; that it cannot is no reason to lose a result or an error."""
    try:
        _ssh(host, f"rm -rf {shlex.quote(remote)}")
    except RunError as failed:
        _logger.warning("%s: %s is left behind: %s", host, remote, failed)


def _ssh(
    host: str, command: str, accepted: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[str]:
    return _run(host, ["ssh", *_OPTIONS, "--", host, command], accepted)


def _run(
    host: str, arguments: Sequence[str], accepted: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[str]:
    program = arguments[0]
    try:
        done = subprocess.run(  # noqa: S603 - a list, and the only shell is the host's own
            arguments, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError as missing:
        raise RunError(f"{program} is not installed here: install an OpenSSH client") from missing
    except subprocess.TimeoutExpired as late:
        raise RunError(f"{host}: {program} took longer than {TIMEOUT_S} s") from late
    if done.returncode == _NO_CONNECTION:
        raise RunError(f"{host}: cannot be reached over ssh: {_last_line(done)}")
    if done.returncode == _NOT_FOUND:
        raise RunError(f"{host}: a program is missing there: {_last_line(done)}")
    if done.returncode not in accepted:
        raise RunError(f"{host}: {program} failed ({done.returncode}): {_last_line(done)}")
    return done


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else "it says nothing"
