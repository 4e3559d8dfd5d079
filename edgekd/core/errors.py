"""Every error that EdgeKD raises on purpose.

    EdgeKDError                 exit code 2 in the CLI unless stated
    ├── RecipeError             a recipe key or value, or an impossible combination
    ├── DeviceError             an unknown or malformed device profile
    ├── DataError               a data set that cannot be read
    ├── ModelError              a checkpoint, network or model file that cannot be used
    ├── ExportError             a converter refused the network
    ├── ProofError              an exported file does not compute what was trained (exit code 3)
    ├── GateError               an exported file does not keep to the recipe's gates (exit code 4)
    └── RunError                the run directory is busy or does not hold what was asked for

A message names what was wrong, the value, and what would be legal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgeKDError(Exception):
    """Base of every deliberate error; the message is complete and fit for a user."""

    exit_code = 2


class RecipeError(EdgeKDError):
    """A recipe key or value is wrong, or a combination is impossible."""


class DeviceError(EdgeKDError):
    """A device profile is unknown or malformed."""


class DataError(EdgeKDError):
    """A data set cannot be read."""


class ModelError(EdgeKDError):
    """A checkpoint, network or model file cannot be used."""


class ExportError(EdgeKDError):
    """A converter refused the network."""


class ProofError(EdgeKDError):
    """An exported file does not compute what was trained."""

    exit_code = 3


class GateError(EdgeKDError):
    """An exported file does not keep to a gate, so nothing is released."""

    exit_code = 4


class RunError(EdgeKDError):
    """A run directory is busy, or does not hold what was asked for."""


def suggest(value: str, legal: Iterable[str]) -> str:
    """Returns ``; did you mean 'x'? legal: x, y`` (the question only where a value is near)."""
    names = sorted(legal)
    near = difflib.get_close_matches(value, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"; {hint}legal: {', '.join(names)}"
