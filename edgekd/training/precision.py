"""In which precision networks compute while they are trained or asked."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from edgekd.machine import cpu_flags

_NATIVE = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU features, as Linux names them on x86 and Arm, that compute in bfloat16. Without one of them
every product is emulated, ten times slower than in float32 (``benchmarks/train_speed.py``)."""


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether bfloat16 is an instruction of this device, and not an emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(cpu_flags() & _NATIVE)


def resolved(device: torch.device, precision: str) -> str:
    """Returns ``float32`` or ``bfloat16`` for one of these, or for ``auto``: what is fast here."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Returns the context in which networks compute in a precision; ``auto`` is `resolved`."""
    if resolved(device, precision) == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
