"""One small registry, used wherever code is chosen by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from edgekd.core.errors import RecipeError, suggest

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Names to values; a duplicate name raises, a missing one lists what exists."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that files its argument under ``name``.

        Raises:
            ValueError: The name is taken.
        """
        if name in self._entries:
            raise ValueError(f"{self._kind} {name!r} is registered twice")

        def file_under_name(value: T) -> T:
            self._entries[name] = value
            return value

        return file_under_name

    def __getitem__(self, name: str) -> T:
        """Returns the entry.

        Raises:
            RecipeError: Nothing goes by that name.
        """
        if name not in self._entries:
            raise RecipeError(f"unknown {self._kind} {name!r}{suggest(name, self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
