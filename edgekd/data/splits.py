"""Which images belong to a split: names of splits, made validation splits, subset lists, paths."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from edgekd.core.errors import DataError
from edgekd.core.types import Problem

SPLITS = ("train", "val", "test")
NOTES = frozenset({"made-split", "subset"})
"""Kinds of problem that only say what was chosen; never an error under ``--strict``."""

_HELD_OUT = 0.2
_LONGEST_NAME = 255
_ALIASES = {"valid": "val", "validation": "val", "trainval": "train", "testing": "test"}
_WORD = re.compile(r"(?<![a-z])(trainval|train|validation|valid|val|testing|test)(?![a-z])")


def split_named_by(text: str) -> str | None:
    """Returns the split that a file or folder name states as a word of its own, else None."""
    match = _WORD.search(text.lower())
    return _ALIASES.get(match[1], match[1]) if match else None


def split_folders(base: Path) -> dict[str, Path]:
    """Returns split → folder for each folder of ``base`` that is named after a split."""
    found: dict[str, Path] = {}
    for path in sorted(base.glob("*")):
        name = path.name.lower()
        split = _ALIASES.get(name, name)
        if split in SPLITS and path.is_dir():
            found.setdefault(split, path)
    return found


def source_of(split: str, available: Iterable[str], root: Path) -> str:
    """Returns the annotated split that ``split`` is taken from: itself, or ``train`` for ``val``.

    Raises:
        DataError: There is neither.
    """
    names = sorted(available)
    if split in names:
        return split
    if split == "val" and "train" in names:
        return "train"
    raise DataError(f"{root}: no split {split!r}; legal: {', '.join(names) or 'none was found'}")


def is_made(split: str, available: Iterable[str]) -> bool:
    """Returns whether ``split`` is train or val of a set that has no ``val`` of its own."""
    return split in ("train", "val") and "val" not in available


def made_split(
    names: Sequence[str], split: str, root: Path, groups: Sequence[str] | None = None
) -> tuple[frozenset[str], Problem]:
    """Returns the names that fall in ``split``, and the note that says so.

    A fifth of each group, at least one of two, is ``val``: the names whose SHA-256 is lowest. The
    choice depends on nothing but the names.

    Args:
        names: Image names, unique.
        split: ``train`` or ``val``.
        root: Named in the note.
        groups: One per name, such as its class; by default all names are one group.
    """
    members: dict[str, list[str]] = {}
    for name, group in zip(names, groups or [""] * len(names), strict=True):
        members.setdefault(group, []).append(name)
    held_out: set[str] = set()
    for group_names in members.values():
        count = round(_HELD_OUT * len(group_names))
        if len(group_names) > 1:
            count = max(count, 1)
        held_out.update(sorted(group_names, key=_digest)[:count])
    chosen = frozenset(held_out if split == "val" else set(names) - held_out)
    detail = (
        f"no val split: {len(held_out)} of {len(names)} train images, chosen by the hash of their "
        "names, are val; neighbouring frames of one video may lie on both sides"
    )
    return chosen, Problem(kind="made-split", path=root, detail=detail)


def subset_file(root: Path, split: str) -> Path | None:
    """Returns the one ``<split>_subset*.txt`` in ``root``, None where there is none or several."""
    lists = sorted(root.glob(f"{split}_subset*.txt"))
    return lists[0] if len(lists) == 1 else None


def subset_names(
    path: Path, names: Mapping[str, str], root: Path
) -> tuple[frozenset[str], tuple[Problem, ...]]:
    """Returns the names that a subset list keeps, and what there is to report about it.

    Args:
        path: Text file, one image a line: its name, or its path under ``root``.
        names: Image name → file name without folders, of every image of the split.
        root: Folder that the listed paths may not leave.

    Raises:
        DataError: The list cannot be read, leaves ``root`` or names no image of the split.
    """
    wanted = read_list(path)
    for line in wanted:
        inside(root, line, path)
    by_file_name = {file_name: name for name, file_name in names.items()}
    matched = {line: line if line in names else by_file_name.get(line) for line in wanted}
    kept = frozenset(name for name in matched.values() if name is not None)
    if not kept:
        raise DataError(f"{path}: none of its {len(wanted)} lines names an image of the split")
    note = Problem(kind="subset", path=path, detail=f"keeps {len(kept)} of {len(names)} images")
    unknown = [
        Problem(kind="unknown-in-subset", path=path, detail=f"{line!r} is not in the split")
        for line, name in matched.items()
        if name is None
    ]
    return kept, (note, *unknown)


def read_list(path: Path) -> list[str]:
    """Returns the lines of a text file, stripped, without the empty ones.

    Raises:
        DataError: The file cannot be read as UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def inside(folder: Path, relative: str, source: Path) -> Path:
    """Returns ``folder / relative``, which may not leave the folder.

    Args:
        folder: Folder of the data set.
        relative: Path as some file states it.
        source: That file, for the message.

    Raises:
        DataError: The path is absolute, climbs with ``..``, or is none that a disk can hold.
    """
    windows = PureWindowsPath(relative)
    absolute = PurePosixPath(relative).is_absolute() or bool(windows.anchor)
    if absolute or ".." in windows.parts or "\0" in relative:
        raise DataError(
            f"{source}: path {relative!r} leaves the data set {folder}; legal: a path inside it"
        )
    try:
        longest = max((len(os.fsencode(part)) for part in windows.parts), default=0)
    except UnicodeEncodeError as error:
        raise DataError(f"{source}: path {relative!r} cannot be a file's name") from error
    if longest > _LONGEST_NAME:
        raise DataError(f"{source}: path {relative[:40]!r}... has a name of {longest} bytes")
    return folder / relative.replace("\\", "/")


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
