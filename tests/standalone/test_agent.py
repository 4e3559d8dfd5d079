from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.standalone import agent


class Clock:
    """Stands in for the module ``time``: passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now

    def pass_ms(self, milliseconds: float) -> None:
        self.now += milliseconds / 1e3


class Sleeper:
    """Stands in for an opened file whose every tenth run is slow, and its first more so."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.fed, self.pinned = clock, [], set[int]()
        self.model = agent._Model("sleeper", "1.0", [((1, 2), "float32")], self.run)

    def run(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        self.fed.append(values)
        self.pinned = os.sched_getaffinity(threading.get_native_id())
        slow = 500 if len(self.fed) <= 8 else 10 if len(self.fed) % 10 == 0 else 1
        self.clock.pass_ms(slow)
        return [values + 1]


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> Sleeper:
    sleeper = Sleeper(Clock())
    monkeypatch.setattr(agent, "time", sleeper.clock)
    monkeypatch.setattr(agent, "_open", lambda *_: sleeper.model)
    return sleeper


@pytest.fixture(autouse=True)
def _unpinned() -> Any:
    before = os.sched_getaffinity(0)
    yield
    agent._pin(sorted(before))


def timed(*options: str) -> dict[str, Any]:
    words = ["time", "net.onnx", "--seconds", "0", "--warmup-seconds", "0", *options]
    found: dict[str, Any] = agent.time_model(agent._parser().parse_args(words))
    return found


def test_warm_up_is_not_timed_and_every_run_is(sleeper: Sleeper) -> None:
    found = timed("--warmup", "7", "--runs", "60")
    assert found["warmup"] == 7
    assert found["first_s"] == pytest.approx(0.5)
    assert len(sleeper.fed) == 68  # The first, the warm-up and those that count.
    assert len(found["inference_s"]) == 60
    assert sorted(found["inference_s"]) == pytest.approx([0.001] * 54 + [0.01] * 6)
    assert found["pre_s"] == found["post_s"] == []


def test_runs_go_on_for_as_long_as_was_asked(sleeper: Sleeper) -> None:
    found = timed("--warmup", "7", "--runs", "5", "--seconds", "0.19")
    assert 95 <= len(found["inference_s"]) <= 105


def test_a_slow_file_is_not_run_for_ever(sleeper: Sleeper) -> None:
    found = timed("--warmup", "7", "--runs", "1000", "--limit", "0.05")
    assert 10 <= len(found["inference_s"]) < 60


def test_the_warm_up_lasts_until_a_governor_has_seen_it(sleeper: Sleeper) -> None:
    assert timed("--warmup", "1", "--warmup-seconds", "2.1")["warmup"] == 5


def test_steps_are_timed_apart_and_fed_to_each_other(
    sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[NDArray[Any]] = []

    def pre() -> NDArray[Any]:
        sleeper.clock.pass_ms(20)
        return np.full((1, 2), 5, np.float32)

    def post(outputs: list[NDArray[Any]]) -> None:
        seen.append(outputs[0])
        sleeper.clock.pass_ms(30)

    sleeper.model.pre, sleeper.model.post = pre, post
    found = timed("--warmup", "7", "--runs", "50")
    assert found["pre_s"] == pytest.approx([0.02] * 50)
    assert found["post_s"] == pytest.approx([0.03] * 50)
    assert np.median(found["inference_s"]) == pytest.approx(0.001)
    assert sleeper.fed[-1].tolist() == [[5, 5]]
    assert seen[-1].tolist() == [[6, 6]]


def test_threads_are_kept_on_as_many_cpus(sleeper: Sleeper) -> None:
    found = timed("--warmup", "5", "--runs", "10")
    assert len(found["cpus"]) == 1
    assert sleeper.pinned == set(found["cpus"])


def test_pinning_reaches_threads_that_exist_already() -> None:
    started, stop, ids = threading.Event(), threading.Event(), []

    def work() -> None:
        ids.append(threading.get_native_id())
        started.set()
        stop.wait()

    worker = threading.Thread(target=work)
    worker.start()
    started.wait()
    cpu = min(os.sched_getaffinity(ids[0]))
    try:
        assert agent._pin([cpu]) == [cpu]
        assert os.sched_getaffinity(ids[0]) == {cpu}
    finally:
        stop.set()
        worker.join()


def test_a_cpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(agent.AgentError, match="CPUs 4000"):
        agent._pin([4000])


def test_big_cores_come_before_little_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {0: 1800000, 1: 1800000, 2: 2400000, 3: 2400000}
    files = {
        f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq": str(clock)
        for cpu, clock in clocks.items()
    }
    monkeypatch.setattr(agent.os, "sched_getaffinity", lambda pid: set(clocks))
    monkeypatch.setattr(agent, "_read", lambda path: files.get(path, ""))
    assert agent._fastest(2) == [2, 3]
    assert agent._fastest(3) == [0, 2, 3]
    assert agent._fastest(9) == [0, 1, 2, 3]


def test_a_refused_file_is_named_on_the_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interpreter(**_: Any) -> None:
        raise ValueError("Could not open it.\n  Tensor 10 is invalidly specified.\n")

    monkeypatch.setitem(sys.modules, "odd", SimpleNamespace(Interpreter=interpreter))
    monkeypatch.setitem(agent.RUNTIMES, ".tflite", (("odd", "odd", "odd"),))
    monkeypatch.setattr(sys, "argv", ["agent.py", "time", "net.tflite"])
    assert agent.main() == 2
    assert capsys.readouterr().err == (
        "error: net.tflite: refused by odd: Could not open it. Tensor 10 is invalidly specified.\n"
    )


@pytest.mark.parametrize(
    ("found", "version"),
    [
        ("onnxruntime-1.20.1.dist-info", "1.20.1"),
        ("onnxruntime_gpu-1.18.0.dist-info", "1.18.0"),
        ("onnxruntime_gpu-1.16.0-py3.8.egg-info", "1.16.0-py3.8"),
        ("onnxruntimes-2.0.dist-info", ""),
    ],
)
def test_a_runtime_is_found_by_whatever_name_its_package_has(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, found: str, version: str
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / found).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert agent._version("onnxruntime") == version


def test_a_file_that_is_refused_only_when_it_runs_is_named() -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("Non-zero status code")

    with pytest.raises(agent.AgentError, match=r"^m\.onnx: refused by ONNX Runtime: Non-zero"):
        agent._naming("m.onnx", "ONNX Runtime", fails)(1)
