from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd import machine as host
from edgekd.benchmark import latency
from edgekd.benchmark.latency import measure_latency
from edgekd.errors import RecipeError
from edgekd.machine import conditions, cpu_model, fastest_cpus, pinned
from edgekd.modelfile.runner import TensorInfo
from edgekd.types import Basis

IMAGE = np.zeros((1, 2), np.float32)

Files = Callable[[dict[str, str]], Path]


class Clock:
    """Stands in for the module ``time``: passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def pass_ms(self, milliseconds: float) -> None:
        self.now += milliseconds / 1e3


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    return clock


class Sleeper:
    """Stands in for a runtime whose every tenth run is slow."""

    path = Path("net.onnx")
    runtime, runtime_version, delegate, threads = "sleeper", "1.0", "none", 1
    input = TensorInfo(name="x", dtype="float32", shape=(1, 2))
    outputs = (TensorInfo(name="y", dtype="float32", shape=(1, 2)),)

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.fed: list[NDArray[Any]] = []
        self.affinity: set[int] = set()

    def run(self, inputs: NDArray[Any]) -> list[NDArray[Any]]:
        self.fed.append(inputs)
        self.affinity = os.sched_getaffinity(0)
        self.clock.pass_ms(10 if len(self.fed) % 10 == 0 else 1)
        return [inputs + 1]


def test_median_ignores_the_slow_runs_and_the_tail_shows_them(clock: Clock) -> None:
    measured = measure_latency(Sleeper(clock), IMAGE, warmup=5, runs=60)
    assert measured.basis is Basis.MEASURED
    assert measured.median_ms == pytest.approx(1)
    assert measured.p90_ms == pytest.approx(1.9)  # Between the 54th and the 55th of 60.
    assert measured.p99_ms == pytest.approx(10)
    assert measured.runs == 60
    assert (measured.pre_ms, measured.post_ms) == (None, None)
    assert (measured.low_ms, measured.high_ms) == (None, None)
    assert (measured.runtime, measured.runtime_version, measured.threads) == ("sleeper", "1.0", 1)


def test_warm_up_runs_are_not_timed(clock: Clock) -> None:
    runner = Sleeper(clock)
    slow_start = runner.run

    def run(inputs: NDArray[Any]) -> list[NDArray[Any]]:
        clock.pass_ms(500 if len(runner.fed) < 7 else 0)
        return slow_start(inputs)

    runner.run = run  # type: ignore[method-assign]
    measured = measure_latency(runner, IMAGE, warmup=7, runs=50)
    assert len(runner.fed) == 57
    assert measured.p99_ms is not None
    assert measured.p99_ms <= 10.001


def test_steps_are_timed_apart_and_fed_to_each_other(clock: Clock) -> None:
    runner, seen = Sleeper(clock), []

    def pre() -> NDArray[Any]:
        clock.pass_ms(20)
        return IMAGE + 5

    def post(outputs: list[NDArray[Any]]) -> None:
        seen.append(outputs[0])
        clock.pass_ms(30)

    measured = measure_latency(runner, IMAGE, warmup=5, runs=50, pre=pre, post=post)
    assert measured.pre_ms == pytest.approx(20)
    assert measured.median_ms == pytest.approx(1)
    assert measured.post_ms == pytest.approx(30)
    assert runner.fed[-1].tolist() == [[5, 5]]
    assert seen[-1].tolist() == [[6, 6]]


@pytest.mark.parametrize(("warmup", "runs"), [(4, 50), (5, 49)])
def test_too_few_runs_are_refused(clock: Clock, warmup: int, runs: int) -> None:
    with pytest.raises(RecipeError, match="at least 5 warm-up and 50 timed runs"):
        measure_latency(Sleeper(clock), IMAGE, warmup=warmup, runs=runs)


def test_threads_are_pinned_only_while_measuring(clock: Clock) -> None:
    before, runner = os.sched_getaffinity(0), Sleeper(clock)
    measured = measure_latency(runner, IMAGE, warmup=5, runs=50)
    assert len(runner.affinity) == 1
    assert measured.conditions["cpus"] == ",".join(map(str, runner.affinity))
    assert os.sched_getaffinity(0) == before


def test_pinning_reaches_threads_that_exist_already() -> None:
    started, stop, ids = threading.Event(), threading.Event(), []

    def work() -> None:
        ids.append(threading.get_native_id())
        started.set()
        stop.wait()

    worker = threading.Thread(target=work)
    worker.start()
    started.wait()
    before = os.sched_getaffinity(ids[0])
    cpu = min(before)
    try:
        with pinned((cpu,)):
            assert os.sched_getaffinity(ids[0]) == {cpu}
        assert os.sched_getaffinity(ids[0]) == before
    finally:
        stop.set()
        worker.join()


def test_board_tells_its_model_and_state(system_files: Files) -> None:
    root = system_files(
        {
            "proc/cpuinfo": "processor : 0\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
            "proc/loadavg": "0.52 0.58 0.59 1/389 4242\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
            "sys/class/thermal/thermal_zone0/temp": "48200\n",
            "sys/class/thermal/thermal_zone1/temp": "51750\n",
        },
    )
    assert cpu_model(root) == "Raspberry Pi 5 Model B Rev 1.0"
    assert conditions(root) == {
        "governor": "ondemand",
        "clock_mhz": "2400",
        "temperature_c": "51.8",
        "load_1min": "0.52",
    }


def test_what_a_system_does_not_tell_is_left_out(
    system_files: Files,
) -> None:
    empty = system_files({})
    assert conditions(empty) == {}
    assert cpu_model(empty)
    root = system_files({"proc/device-tree/model": "NVIDIA Jetson Orin Nano\0"})
    assert cpu_model(root) == "NVIDIA Jetson Orin Nano"


def test_big_cores_come_before_little_ones(
    system_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = {0: 1800000, 1: 1800000, 2: 2400000, 3: 2400000}
    name = "sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_max_freq"
    root = system_files({name.format(cpu): f"{clock}\n" for cpu, clock in clocks.items()})
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: set(clocks))
    assert fastest_cpus(2, root) == (2, 3)
    assert fastest_cpus(3, root) == (0, 2, 3)
    assert fastest_cpus(9, root) == (0, 1, 2, 3)
