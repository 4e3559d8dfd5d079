"""The operators of an exported graph, as torch has them, and their entries in the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from edgekd.modelfile.operator_table import BY_TORCH, OperatorEntry

Target = Any
"""An overload such as ``torch.ops.aten.conv2d.default``."""


def overload(name: str) -> Target:
    """Returns the operator of a name such as ``aten.conv2d.default``."""
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


ENTRIES: dict[Target, OperatorEntry] = {overload(name): entry for name, entry in BY_TORCH.items()}
"""By operator."""


def targets(wanted: Callable[[OperatorEntry], bool]) -> frozenset[Target]:
    """Returns the operators whose entries are wanted."""
    return frozenset(target for target, entry in ENTRIES.items() if wanted(entry))
