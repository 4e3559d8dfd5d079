"""The latency protocol: warm up, pin, time every run, report the median and the tail."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import RecipeError
from edgekd.machine import conditions, cpu_model, fastest_cpus, pinned
from edgekd.modelfile.runner import Runner
from edgekd.types import Basis, Latency

MINIMUM_WARMUP = 5
MINIMUM_RUNS = 50

Preprocess = Callable[[], NDArray[Any]]
Postprocess = Callable[[list[NDArray[Any]]], object]


def measure_latency(
    runner: Runner,
    inputs: NDArray[Any],
    *,
    warmup: int = 10,
    runs: int = 60,
    pre: Preprocess | None = None,
    post: Postprocess | None = None,
) -> Latency:
    """Returns the latency of one inference on this computer, timed run by run.

    Threads are as many as the runner was opened with, kept on as many of the fastest CPUs.

    Args:
        runner: A loaded model.
        inputs: One input, batch dimension included.
        warmup: Untimed runs first, at least 5.
        runs: Timed runs, at least 50.
        pre: Makes the input of each run in place of ``inputs``; timed apart.
        post: Consumes the outputs of each run; timed apart.

    Raises:
        RecipeError: Fewer runs than a median and a 90th percentile need.
        ModelError: The input does not fit the model.
    """
    if warmup < MINIMUM_WARMUP or runs < MINIMUM_RUNS:
        raise RecipeError(
            f"latency needs at least {MINIMUM_WARMUP} warm-up and {MINIMUM_RUNS} timed runs, "
            f"got {warmup} and {runs}"
        )
    cpus = fastest_cpus(runner.threads)
    before = conditions()
    with pinned(cpus):
        for _ in range(warmup):
            _timed(runner, inputs, pre, post)
        times = np.array([_timed(runner, inputs, pre, post) for _ in range(runs)]) * 1e3
    pre_ms, median_ms, post_ms = np.median(times, axis=0)
    return Latency(
        basis=Basis.MEASURED,
        where=cpu_model(),
        runtime=runner.runtime,
        runtime_version=runner.runtime_version,
        delegate=runner.delegate,
        threads=runner.threads,
        median_ms=float(median_ms),
        p90_ms=float(np.percentile(times[:, 1], 90)),
        p99_ms=float(np.percentile(times[:, 1], 99)),
        runs=runs,
        pre_ms=float(pre_ms) if pre else None,
        post_ms=float(post_ms) if post else None,
        conditions=_described(before, conditions(), cpus),
    )


def _timed(
    runner: Runner,
    inputs: NDArray[Any],
    pre: Preprocess | None,
    post: Postprocess | None,
) -> tuple[float, float, float]:
    """Returns the seconds of preprocessing, inference and postprocessing in one run."""
    start = time.perf_counter()
    fed = pre() if pre else inputs
    ready = time.perf_counter()
    outputs = runner.run(fed)
    done = time.perf_counter()
    if post:
        post(outputs)
    return ready - start, done - ready, time.perf_counter() - done


def _described(
    before: dict[str, str], after: dict[str, str], cpus: tuple[int, ...]
) -> dict[str, str]:
    """Returns each condition, as ``before to after`` where it changed during the measurement."""
    changed = {
        name: after[name]
        if before.get(name, after[name]) == after[name]
        else f"{before[name]} to {after[name]}"
        for name in after
    }
    return changed | {"cpus": ",".join(map(str, cpus)) or "not pinned"}
