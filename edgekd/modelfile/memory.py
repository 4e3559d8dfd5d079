"""A model file opened and run in a process of its own: whether it can be, and in how much memory.

Started as ``python -m edgekd.modelfile.memory FILE NATIVE`` it measures itself: the highest
resident memory once the file has run, less that with the runtime loaded and nothing open.
That holds weights, packed weights and the arena of activations, and not the runtime's own code.
``NATIVE`` is 1 where int8 activations stay int8 on x86.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgekd.errors import ModelError
from edgekd.isolated import CrashedError, IsolatedError, last_line
from edgekd.machine import entries

RUNS = 3
TIMEOUT_S = 600.0
TRIAL_S = 120.0
_STATUS = Path("/proc/self/status")


def peak_memory(model: Path, *, int8_native: bool = False) -> int | None:
    """Returns bytes, or None where the system does not tell (it is Linux that does).

    Raises:
        ModelError: The file cannot be opened or run.
    """
    if not _STATUS.exists():
        return None
    native = str(int(int8_native))
    try:
        return int(last_line("edgekd.modelfile.memory", str(model), native, timeout_s=TIMEOUT_S))
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
        last_line("edgekd.modelfile.memory", str(model), "0", timeout_s=TRIAL_S)
    except CrashedError as crashed:
        raise ModelError(
            f"{model}: its runtime {crashed} when it opens or runs this file, which is damaged or "
            "made to do so"
        ) from crashed
    except IsolatedError:
        return


def _measure(model: Path, *, int8_native: bool) -> int:
    from edgekd.modelfile.runner import load_runtime, open_runner

    load_runtime(model)
    before = _resident("VmRSS")
    runner = open_runner(model, threads=1, int8_native=int8_native)
    shape = tuple(size or 1 for size in runner.input.shape)
    for _ in range(RUNS):
        runner.run(np.zeros(shape, runner.input.dtype))
    return max(0, _resident("VmHWM") - before)


def _resident(key: str) -> int:
    if not _STATUS.exists():
        return 0
    return 1024 * int(dict(entries(_STATUS))[key].split()[0])


if __name__ == "__main__":
    found = _measure(Path(sys.argv[1]), int8_native=sys.argv[2] == "1")
    sys.stdout.write(f"\n{found}\n")
