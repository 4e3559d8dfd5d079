"""In which precision networks compute while they are trained or asked."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from edgekd.core.host import cpu_flags, cpu_vendor
from edgekd.core.progress import Progress


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether this device is known to compute in bfloat16 faster than in float32.

    Measured on x86: Intel's matrix units are, and AVX-512 BF16 is on AMD's processors; on Intel's
    it trains these networks a tenth to a third slower than float32. Elsewhere bfloat16 is emulated,
    many times slower. Arm's has not been measured.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = cpu_flags() if device.type == "cpu" else frozenset()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and cpu_vendor() == "AuthenticAMD")


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
