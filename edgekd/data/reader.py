"""A reader of data sets: how one format is recognised and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekd.core.errors import DataError, RecipeError
from edgekd.core.modules import import_all
from edgekd.core.types import Dataset
from edgekd.data.cleaning import ReadRequest

Read = Callable[[ReadRequest], Dataset]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """One format of data sets.

    Attributes:
        name: As in a recipe's ``data.format``.
        finds: Takes the data set's path; returns whether it is of this format.
        read: Takes a `ReadRequest`; returns the split.
        describes: What a set of this format has, for an error that lists every format.
        order: Readers with a lower one are asked first.
    """

    name: str
    finds: Callable[[Path], bool]
    read: Read
    describes: str
    order: int


_READERS: dict[str, Reader] = {}


def register_reader(
    name: str, *, finds: Callable[[Path], bool], describes: str, order: int = 0
) -> Callable[[Read], Read]:
    """Returns a decorator that makes a function the reader of a format.

    The function takes a `ReadRequest` and returns a `Dataset`; `assemble_dataset` makes one of
    annotations as they were found, and checks every box. It raises `DataError` where the split is
    absent or nothing in it can be used.

    Args:
        name: As in a recipe's ``data.format``.
        finds: Takes the data set's path; returns whether it is of this format.
        describes: What such a set has, such as ``a boxes.csv beside the images``.
        order: Readers with a lower one are asked first; EdgeKD's own have 10 and more.

    Raises:
        RecipeError: The name is taken.
    """

    def registered(read: Read) -> Read:
        taken = _READERS.get(name)
        if taken is not None and taken.read.__module__ != read.__module__:
            raise RecipeError(f"format {name!r} has a reader already; legal: another name")
        _READERS[name] = Reader(name=name, finds=finds, read=read, describes=describes, order=order)
        return read

    return registered


def unregister_reader(name: str) -> None:
    """Forgets a reader; one that is not there is no error."""
    _READERS.pop(name, None)


def readers() -> dict[str, Reader]:
    """Returns every reader by name, in the order in which they are asked."""
    import_all("edgekd.data.readers")
    return {r.name: r for r in sorted(_READERS.values(), key=lambda r: r.order)}


def recognise(root: Path) -> str:
    """Returns the name of the format of the data set at ``root``: the first that fits.

    Raises:
        DataError: Nothing is there, or nothing of a known format.
    """
    if not root.exists():
        raise DataError(f"{root}: no such data set")
    for name, reader in readers().items():
        if reader.finds(root):
            return name
    legal = ", ".join(reader.describes for reader in readers().values())
    raise DataError(f"{root}: no known data set; legal: {legal}")
