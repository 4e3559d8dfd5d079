"""In which precision networks compute while they are trained or asked."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from edgekd.machine import cpu_flags
from edgekd.progress import Progress

_NATIVE = frozenset({"avx512_bf16", "amx_bf16"})
"""CPU features, as Linux names them, with which training in bfloat16 was measured to be faster.
Without them x86 emulates it, many times slower than float32; Arm's has not been measured."""


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether this device is known to compute in bfloat16 faster than in float32."""
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


def warn_of_emulation(device: torch.device, precision: str, progress: Progress) -> None:
    """Notes that the precision asked for is slow here, where it is."""
    if precision == "bfloat16" and not has_bfloat16(device):
        progress.note(
            "precision bfloat16: not known to be fast on this processor, and many times slower "
            "than float32 where it is emulated; auto takes what is fast"
        )
