"""The run directory: one folder a stage, finished or resumable, never half-believed.

A stage's folder holds ``inputs.json`` (what it was started with), its own files, and, once it is
whole, ``done.json`` (hash of the inputs and of every output). A stage whose inputs hash the same
and whose outputs are still what they were is skipped; one with other inputs starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd.errors import RunError
from edgekd.files import sha256_of, write_atomic
from edgekd.report.record import from_json
from edgekd.strict import from_mapping
from edgekd.types import Artifact, RunRecord


class RunFolder:
    """One run on disk; only one process may hold it.

    Args:
        path: Made where it does not exist.

    Raises:
        RunError: Another process holds it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(f"{path}: cannot be used as a run directory ({error})") from error
        _hold(self._lock, path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._lock)

    def stage(self, name: str, inputs: dict[str, Any], work: Callable[[Path], None]) -> Path:
        """Returns the folder of a finished stage, working if need be.

        Args:
            name: Of the stage and its folder.
            inputs: JSON-ready; everything that the outputs depend on.
            work: Writes the outputs into the folder that it is given. Files ending in ``.pt`` are
                checkpoints: they resume interrupted work and are removed at the end.
        """
        folder = self.path / name
        wanted = digest(inputs)
        outputs = _finished(folder, wanted)
        if outputs is None:
            self._prepare(folder, inputs, wanted)
            self._event(name, "started")
            began = time.monotonic()
            work(folder)
            for checkpoint in folder.glob("*.pt"):
                checkpoint.unlink()
            spent = time.monotonic() - began
            outputs = {
                p.relative_to(folder).as_posix(): sha256_of(p)
                for p in sorted(folder.rglob("*"))
                if _is_output(p, folder)
            }
            record = {"inputs": wanted, "outputs": outputs, "seconds": round(spent, 1)}
            write_atomic(folder / "done.json", json.dumps(record, indent=1))
            self._event(name, "finished")
        else:
            self._event(name, "skipped")
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        self.seconds[name] = float(done["seconds"])
        return folder

    def discard(self, name: str) -> None:
        """Removes what a stage left, whether it is there or not."""
        shutil.rmtree(self.path / name, ignore_errors=True)

    def _prepare(self, folder: Path, inputs: dict[str, Any], wanted: str) -> None:
        started = folder / "inputs.json"
        if folder.exists() and not (started.exists() and _recorded(started) == wanted):
            shutil.rmtree(folder)
        (folder / "done.json").unlink(missing_ok=True)
        for orphan in folder.rglob(".*.tmp"):  # Of a process that was killed while it wrote.
            orphan.unlink()
        write_atomic(started, json.dumps({"hash": wanted, "inputs": inputs}, indent=1, default=str))

    def _event(self, stage: str, what: str) -> None:
        line = json.dumps({"time": time.time(), "stage": stage, "event": what})
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def finished_record(run: Path) -> RunRecord:
    """Returns the record in a finished run's report.

    Raises:
        RunError: The run has no report yet, or it cannot be read.
    """
    path = run / "report" / "report.json"
    if not path.is_file():
        raise RunError(f"{run}: no report there; `edgekd compress --out {run} ...` makes one")
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (RunError, OSError, UnicodeDecodeError) as unreadable:
        raise RunError(f"{path}: cannot be read: {unreadable}") from unreadable


def exported_files(folder: Path) -> tuple[Artifact, ...]:
    """Returns what the export stage wrote into ``folder``.

    Raises:
        RunError: There is no export, or its list cannot be read.
    """
    path = folder / "artifacts.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: no list of exported files ({error})") from error
    found = [from_mapping(Artifact, entry, str(path), RunError) for entry in entries]
    return tuple(replace(a, path=folder / a.path) for a in found)


def digest(value: object) -> str:
    """Returns the SHA-256 of a JSON-ready value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _hold(lock: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no such lock; sharing a folder is the user's to avoid.
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise RunError(
            f"{path}: another edgekd process is working in this run directory"
        ) from error


def _is_output(path: Path, folder: Path) -> bool:
    own = path.parent == folder and path.name in ("done.json", "inputs.json")
    return path.is_file() and not own


def _recorded(path: Path) -> str | None:
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["hash"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(recorded)


def _finished(folder: Path, wanted: str) -> dict[str, str] | None:
    """Returns the outputs of a stage that is done with these inputs and still whole."""
    try:
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        outputs: dict[str, str] = done["outputs"]
        if done["inputs"] != wanted:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all((folder / n).is_file() and sha256_of(folder / n) == h for n, h in outputs.items())
    return outputs if whole else None
