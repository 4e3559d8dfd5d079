"""Converters and runtimes talk a lot; this keeps their talk out of EdgeKD's output."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silences output, logging and warnings, also of compiled code; errors still raise."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w", encoding="utf-8") as nowhere,  # noqa: PTH123 - a device
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            _descriptors(nowhere.fileno(), (1, 2)),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


@contextlib.contextmanager
def errors_only(name: str) -> Iterator[None]:
    """Keeps a library's logger from saying anything but errors, while our own output goes on."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _descriptors(target: int, redirected: tuple[int, ...]) -> Iterator[None]:
    """Points file descriptors somewhere else: compiled code does not know Python's streams."""
    if sys.__stdout__:
        sys.__stdout__.flush()
    saved = [os.dup(descriptor) for descriptor in redirected]
    try:
        for descriptor in redirected:
            os.dup2(target, descriptor)
        yield
    finally:
        for descriptor, original in zip(redirected, saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
