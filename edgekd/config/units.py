"""Times and sizes as people write them on a command line: ``15ms``, ``0.4MiB``."""

from __future__ import annotations

import re

from edgekd.core.errors import RecipeError

TIMES_MS = {"ms": 1.0, "us": 1e-3, "s": 1e3}
SIZES_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*\Z", re.IGNORECASE)


def milliseconds(text: str) -> float:
    """Returns a time in ms; a number without a unit is one.

    Raises:
        RecipeError: It is not a time.
    """
    return _parsed(text, TIMES_MS, "ms", "a time such as 15ms or 0.5s")


def size_bytes(text: str) -> int:
    """Returns a size in bytes; a number without a unit is one.

    Raises:
        RecipeError: It is not a size.
    """
    return round(_parsed(text, SIZES_BYTES, "b", "a size such as 400KiB or 1.5MB"))


def points(text: str) -> float:
    """Returns points of 100.

    Raises:
        RecipeError: It is not a number.
    """
    return _parsed(text, {"": 1.0}, "", "points of 100 such as 0.5")


def _parsed(text: str, units: dict[str, float] | dict[str, int], plain: str, legal: str) -> float:
    match = _QUANTITY.match(text)
    unit = (match[2].lower() or plain) if match else ""
    if match is None or unit not in units:
        raise RecipeError(f"{text!r}: expected {legal}")
    return float(match[1]) * units[unit]
