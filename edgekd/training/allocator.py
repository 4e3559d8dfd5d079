"""Keeps the memory of one training step for the next."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # Names of glibc's mallopt(3).
_NEVER = 2**31 - 1
_GROWTH = 64 * 2**20


@cache
def keep_freed_memory() -> bool:
    """Returns whether the C library will keep freed memory, from now on in this whole process.

    glibc gives every large tensor its own pages and hands them back when it is freed, so that each
    step pays for zeroed pages again: up to a third of the time of a small network on a CPU
    (``benchmarks/train_speed.py``). Peak memory stays what it is; it is merely not returned between
    steps. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    wanted = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH))
    return all(library.mallopt(name, value) for name, value in wanted)
