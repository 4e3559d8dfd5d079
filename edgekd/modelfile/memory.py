"""A model file opened and run in a process of its own: whether it can be, and in how much memory.

Started as ``python -m edgekd.modelfile.memory FILE ARITHMETIC`` it measures itself: the highest
resident memory once the file has run, less that with the runtime loaded and nothing open.
That holds weights, packed weights and the arena of activations, and not the runtime's own code.
``ARITHMETIC`` is one of `edgekd.core.types.Arithmetic`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import numpy as np

from edgekd.core.errors import ModelError
from edgekd.core.host import entries
from edgekd.core.subprocesses import CrashedError, IsolatedError, last_line
from edgekd.core.types import Arithmetic

RUNS = 3
TIMEOUT_S = 600.0
TRIAL_S = 120.0
_STATUS = Path("/proc/self/status")


def peak_memory(model: Path, *, arithmetic: Arithmetic = "any") -> int | None:
    """Returns bytes, or None where the system does not tell (it is Linux that does).

    Raises:
        ModelError: The file cannot be opened or run.
    """
    if not _STATUS.exists():
        return None
    try:
        told = last_line("edgekd.modelfile.memory", str(model), arithmetic, timeout_s=TIMEOUT_S)
        return int(told)
    except IsolatedError as error:
        raise ModelError(f"{model}: cannot be run in a process of its own: {error}") from error


def try_out(model: Path) -> None:
    """Makes sure that a file from anywhere does not take this process with it.

    A runtime may abort on a file that is malformed inside. One that it merely refuses is left to
    whoever opens it next.

    Raises:
        ModelError: Opening or running the file crashes its runtime, or takes minutes.
    """
    try:
        last_line("edgekd.modelfile.memory", str(model), "any", timeout_s=TRIAL_S)
    except CrashedError as crashed:
        raise ModelError(
            f"{model}: its runtime {crashed} when it opens or runs this file, which is damaged or "
            "made to do so"
        ) from crashed
    except IsolatedError:
        return


def _measure(model: Path, arithmetic: Arithmetic) -> int:
    from edgekd.modelfile.runner import load_runtime, open_runner

    load_runtime(model)
    before = _resident("VmRSS")
    runner = open_runner(model, threads=1, arithmetic=arithmetic)
    shape = tuple(size or 1 for size in runner.input.shape)
    for _ in range(RUNS):
        runner.run(np.zeros(shape, runner.input.dtype))
    return max(0, _resident("VmHWM") - before)


def _resident(key: str) -> int:
    if not _STATUS.exists():
        return 0
    return 1024 * int(dict(entries(_STATUS))[key].split()[0])


if __name__ == "__main__":
    asked = {choice: choice for choice in get_args(Arithmetic)}[sys.argv[2]]
    found = _measure(Path(sys.argv[1]), asked)
    sys.stdout.write(f"\n{found}\n")
