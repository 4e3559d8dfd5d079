"""Folders that EdgeKD made. Nothing that it did not make is ever removed.

A folder is EdgeKD's own where it holds a marker, a small JSON file that says so. A folder that
holds anything else and no marker is refused before a file is written into it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import edgekd
from edgekd.core.errors import RunError
from edgekd.core.files import write_atomic

MARKER = ".edgekd"
ORPHAN = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""Names that `write_atomic` gives: of a process that was killed before it could write a marker."""


def claim(folder: Path, kind: str, ignored: Collection[str] = ()) -> dict[str, Any]:
    """Returns what the folder's marker says, after marking it where it is new or empty.

    Args:
        folder: Made where it does not exist.
        kind: What EdgeKD uses it for, such as ``run directory``.
        ignored: Names that may lie in a folder that counts as empty.

    Raises:
        RunError: Somebody else's files lie in it, or it cannot be written.
    """
    known = marked(folder)
    if known is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            names = {path.name for path in folder.iterdir()} - {*ignored}
            others = sorted(name for name in names if not ORPHAN.fullmatch(name))
        except OSError as error:
            raise RunError(f"{folder}: cannot be used as a {kind} ({error})") from error
        if others:
            raise RunError(
                f"{folder}: holds {others[0]!r} and was not made by EdgeKD, so that nothing in it "
                f"is touched; legal as a {kind}: a new folder, an empty one, or an earlier one"
            )
        known = mark(folder, {"kind": kind})
    return known


def mark(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes the marker of a folder and returns what it says."""
    known = {"edgekd": edgekd.__version__, **facts}
    write_atomic(folder / MARKER, json.dumps(known, indent=1) + "\n")
    return known


def marked(folder: Path) -> dict[str, Any] | None:
    """Returns what the folder's marker says, None where it has none that EdgeKD wrote."""
    try:
        known = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and "edgekd" in known else None


def files_in(folder: Path) -> Iterator[str]:
    """Yields the files below a folder as relative POSIX paths, sorted; links are not followed."""
    found = []
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [Path(place, name).relative_to(folder).as_posix() for name in (*names, *links)]
    yield from sorted(found)


def clear(folder: Path, kept: Collection[str]) -> None:
    """Removes every file below a folder but those kept, and the folders that are empty then."""
    for name in files_in(folder):
        if name not in kept:
            (folder / name).unlink()
    for place, _, _ in os.walk(folder, topdown=False):
        if not any(Path(place).iterdir()):
            Path(place).rmdir()
