"""Crash-safe checkpoints of a training run; nothing is unpickled."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from edgekd.core.errors import ModelError
from edgekd.core.files import write_atomic


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` (tensors, plain values, containers); a crash leaves the old or the new."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Returns the saved state, None where there is none yet.

    Raises:
        ModelError: The file is damaged, or holds more than tensors and plain values.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{path}: not a checkpoint that can be read safely ({type(error).__name__}); "
            "delete it to start this stage afresh"
        ) from error
    if not isinstance(state, dict):
        raise ModelError(f"{path}: holds a {type(state).__name__}, expected a dict of state")
    return state
