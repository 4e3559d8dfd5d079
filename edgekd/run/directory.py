"""The run directory: one folder a stage, finished or resumable, never half-believed.

A stage's folder holds ``inputs.json`` (what it was started with), its own files, and, once it is
whole, ``done.json`` (hash of the inputs and of every output). A stage whose inputs hash the same
and whose outputs are still what they were is skipped; one with other inputs starts afresh.

The directory and every stage's folder carry EdgeKD's marker. When a stage starts afresh only what
it wrote itself is removed: a file that somebody put beside it stays where it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol

from edgekd.config.recipe import Recipe
from edgekd.core.errors import RunError
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.owned import MARKER, ORPHAN, claim, clear, files_in, mark, marked
from edgekd.core.results import RunRecord
from edgekd.core.serialize import from_mapping, to_mapping
from edgekd.core.types import Artifact
from edgekd.report.record import from_json

LOCK = ".lock"
_OWN = (MARKER, "done.json", "inputs.json")
"""What a stage's folder holds beside the stage's outputs."""

CONTENT_NAME = re.compile(r".+-[0-9a-f]{12}\.(pt2|safetensors)")
"""A network that was given as an object: named after its content, it may lie anywhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a run directory is for.

    Attributes:
        command: ``compress`` or ``train``.
        data: Absolute path of the data set; empty for the built-in demo.
        target: Id of the device profile.
        recipe: Hash of everything that makes the files.
    """

    command: str
    data: str
    target: str
    recipe: str

    @property
    def title(self) -> str:
        """One phrase for messages."""
        return f"`edgekd {self.command}` on {self.data or 'the demo set'} for {self.target}"


class Stage(Protocol):
    """One step of a run: what its outputs depend on, and the work that makes them, side by side."""

    @property
    def name(self) -> str:
        """Of the stage and its folder."""

    def inputs(self) -> dict[str, Any]:
        """Returns everything that the outputs depend on, ready for JSON."""

    def work(self, folder: Path) -> None:
        """Writes the outputs into the folder.

        Files ending in ``.pt`` are checkpoints: they resume interrupted work and are removed at
        the end.
        """


class RunDirectory:
    """One run on disk; only one process may hold it.

    Args:
        path: Made where it does not exist.
        asked: What it is to hold; None leaves that open.
        plugins: Hash or version of each plugin: every stage depends on them.

    Attributes:
        continues: Whether it holds, finished or not, a run of the very same recipe, or is new.

    Raises:
        RunError: Another process holds it, it cannot be written, it holds files that EdgeKD did not
            make, or a run on another data set or for another target.
    """

    def __init__(
        self, path: Path, asked: Asked | None = None, plugins: Mapping[str, str] | None = None
    ) -> None:
        self.path, self._plugins = path, dict(plugins or {})
        self.seconds: dict[str, float] = {}
        _adopt_earlier(path)
        known = claim(path, "run directory", ignored=(LOCK,))
        try:
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(f"{path}: cannot be used as a run directory ({error})") from error
        _hold(self._lock, path)
        try:
            self.continues = self._dedicate(_asked(known), asked)
        except BaseException:
            os.close(self._lock)
            raise

    def _dedicate(self, former: Asked | None, asked: Asked | None) -> bool:
        if asked is None:
            return True
        if former and former.title != asked.title:
            raise RunError(
                f"{self.path}: holds a run of {former.title}; this is {asked.title}: name another "
                "folder with --out"
            )
        mark(self.path, {"kind": "run directory", "run": asdict(asked)})
        return former is None or former == asked

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._lock)

    def complete(self, stage: Stage) -> Path:
        """Returns the folder of a finished stage, which works if need be."""
        name, inputs = stage.name, stage.inputs()
        if self._plugins:
            inputs = {**inputs, "plugins": self._plugins}
        folder = self.path / name
        wanted = digest(inputs)
        if _finished(folder, wanted) is None:
            self._prepare(folder, inputs, wanted)
            self._event(name, "started")
            began = time.monotonic()
            stage.work(folder)
            self._finish(folder, wanted, time.monotonic() - began)
            self._event(name, "finished")
        else:
            self._event(name, "skipped")
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        self.seconds[name] = float(done["seconds"])
        return folder

    def _finish(self, folder: Path, wanted: str, seconds: float) -> None:
        for checkpoint in folder.glob("*.pt"):
            checkpoint.unlink()
        beside = {*_OWN, *_not_ours(folder)}
        outputs = {n: sha256_of(folder / n) for n in files_in(folder) if n not in beside}
        record = {"inputs": wanted, "outputs": outputs, "seconds": round(seconds, 1)}
        write_atomic(folder / "done.json", json.dumps(record, indent=1))

    def discard(self, name: str) -> None:
        """Removes what a stage wrote, whether it is there or not."""
        folder = self.path / name
        if folder.exists() and not _emptied(folder):
            (folder / MARKER).unlink()
            folder.rmdir()

    def _prepare(self, folder: Path, inputs: dict[str, Any], wanted: str) -> None:
        started = folder / "inputs.json"
        kept = _require_stage(folder)
        if folder.exists() and not (started.exists() and _recorded(started) == wanted):
            _emptied(folder)
        (folder / "done.json").unlink(missing_ok=True)
        for orphan in folder.rglob(".*.tmp"):
            if ORPHAN.fullmatch(orphan.name):
                orphan.unlink()
        mark(folder, {"kind": "stage", "not_ours": sorted(kept)})
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


def _require_stage(folder: Path) -> set[str]:
    """Returns the names of what others put into a stage's folder.

    Raises:
        RunError: The folder is not EdgeKD's.
    """
    if folder.exists():
        claim(folder, "stage's folder")
    return _not_ours(folder)


def _emptied(folder: Path) -> set[str]:
    """Removes what a stage wrote but its marker; returns what others put there, which stays.

    The marker says what stays before anything is removed, so that a kill in between loses nothing.
    """
    kept = _require_stage(folder)
    mark(folder, {"kind": "stage", "not_ours": sorted(kept)})
    (folder / "done.json").unlink(missing_ok=True)
    clear(folder, {*kept, MARKER})
    return kept


def _not_ours(folder: Path) -> set[str]:
    """Returns what lies in a stage's folder and was not written by the stage.

    Of a stage that has not finished, what lay there when it began.
    """
    outputs = _outputs(folder)
    if outputs is not None:
        return set(files_in(folder)) - {*outputs, *_OWN}
    return set((marked(folder) or {}).get("not_ours", ()))


def _adopt_earlier(run: Path) -> None:
    """Marks a run directory, and the stages in it, that a version without markers made."""
    if marked(run) is not None or not (run / LOCK).exists():
        return
    try:
        with (run / "events.jsonl").open(encoding="utf-8") as stream:
            first = json.loads(stream.readline())
    except (OSError, ValueError):
        return
    if not isinstance(first, dict) or set(first) != {"time", "stage", "event"}:
        return
    mark(run, {"kind": "run directory"})
    for started in run.glob("*/inputs.json"):
        if _recorded(started) is not None:
            mark(started.parent, {"kind": "stage"})


def _asked(known: dict[str, Any]) -> Asked | None:
    """Returns what a run directory's marker says that it is for, None where it leaves that open."""
    try:
        return Asked(**known["run"])
    except (KeyError, TypeError):
        return None


def asked_of(command: str, recipe: Recipe, target: str) -> Asked:
    """Returns what a command's run directory is for.

    Args:
        command: ``compress`` or ``train``.
        recipe: As the user gave it.
        target: Id of its device profile.
    """
    data = recipe.data.path
    return Asked(
        command=command,
        data=str(data.resolve()) if data else "",
        target=target,
        recipe=making(recipe),
    )


def making(recipe: Recipe, *, with_gates: bool = False) -> str:
    """Returns the hash of what a file is made by; a gate only judges it, unless it steers."""
    made_by = {k: v for k, v in to_mapping(recipe).items() if k != "gates" or with_gates}
    for section, key in (("teacher", "model"), ("student", "architecture")):
        name = Path(made_by[section][key] or "").name
        if CONTENT_NAME.fullmatch(name):
            made_by[section] = {**made_by[section], key: name}
    if not recipe.plugins:  # The hash of a recipe from before there were any.
        del made_by["plugins"]
    return digest(made_by)


def default_folder(asked: Asked, runs: Path = Path("runs")) -> Path:
    """Returns the folder of a run that was given none.

    It is named after data and target. A run that was begun with the same recipe is gone on with;
    one of another recipe, and a folder of somebody else's, stay as they are.
    """
    name = re.sub(r"[^\w.-]+", "-", Path(asked.data).name).strip(".-") or "demo"
    base = f"{name}-{asked.target}" if asked.command == "compress" else f"{name}-{asked.command}"
    for folder in sorted(runs.glob(f"{base}*")):
        if _asked(marked(folder) or {}) == asked:
            return folder
    numbered = (runs / f"{base}-{number}" for number in count(2))
    return next(folder for folder in chain([runs / base], numbered) if not folder.exists())


def _recorded(path: Path) -> str | None:
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["hash"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(recorded)


def _outputs(folder: Path) -> dict[str, str] | None:
    """Returns the outputs that a finished stage lists, None of one that has not finished."""
    try:
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        return {str(name): str(sha256) for name, sha256 in done["outputs"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _finished(folder: Path, wanted: str) -> dict[str, str] | None:
    """Returns the outputs of a stage that is done with these inputs and still whole."""
    outputs = _outputs(folder)
    if outputs is None:
        return None
    done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    if done.get("inputs") != wanted or not isinstance(done.get("seconds"), int | float):
        return None
    whole = all((folder / n).is_file() and sha256_of(folder / n) == h for n, h in outputs.items())
    return outputs if whole else None
