"""A module of ours run in a process of its own, so that what crashes takes nothing with it."""

from __future__ import annotations

import subprocess
import sys


class IsolatedError(Exception):
    """The process ended without an answer; the message says why, in one line."""


class CrashedError(IsolatedError):
    """The process was ended by a signal, or did not end in time."""


def last_line(module: str, *arguments: str, timeout_s: float) -> str:
    """Returns the last line that ``python -m module`` prints.

    Raises:
        CrashedError: It crashed or took too long.
        IsolatedError: It failed.
    """
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - our own module, each argument by itself
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CrashedError(f"did not answer within {timeout_s:.0f} s") from error
    if done.returncode < 0:
        raise CrashedError(f"crashed with signal {-done.returncode}")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise IsolatedError(said[-1] if said else f"exit code {done.returncode}")
    return done.stdout.strip().splitlines()[-1]
