"""Processes of our own that share the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def start_method() -> str | None:
    """Returns how worker processes start, None for the platform's own way.

    Once the TFLite converter has loaded JAX, threads run here that a forked copy would wait for.
    """
    return "forkserver" if "jax" in sys.modules and os.name == "posix" else None


@contextmanager
def main_module_hidden() -> Iterator[None]:
    """Lets worker processes start without importing the program's main module.

    A worker that is no forked copy imports it first, and a script without a guard would run again.
    Nothing that a worker is sent is defined there.
    """
    main = sys.modules["__main__"]
    known = {n: getattr(main, n) for n in ("__file__", "__spec__") if hasattr(main, n)}
    for name in known:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in known.items():
            setattr(main, name, value)


def cores() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
