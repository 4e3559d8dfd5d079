"""Measures a file where it will run: one protocol over this computer, ssh and adb.

Warm up at least ten runs and half a second; time at least sixty runs and three seconds, each by
itself, on as many of the fastest CPUs as there are threads; read clocks, heat and throttling
before and after. A run during which the board was slowed down is marked invalid, and a board that
does other work at the same time is said to be busy.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.board.logs import Timing, read_benchmark_model, read_trtexec
from edgekd.board.state import BoardState, board_state, slowed, tegrastats_power
from edgekd.board.transport import ANDROID_TEMPORARY, Workspace, last_line
from edgekd.core.errors import ModelError, RunError
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Basis, Latency
from edgekd.modelfile.contract import read_contract
from edgekd.standalone import standalone_file

BUSY_CPUS = 0.25
"""CPUs kept busy by other processes, from which on a board counts as busy."""

UNSTABLE = 0.1
"""Share by which the 90th percentile may exceed the median before clocks are in doubt."""

ANDROID_FACTS = (
    ("getprop", "ro.product.model"),
    ("getprop", "ro.soc.model"),
    ("getprop", "ro.board.platform"),
    ("getprop", "ro.build.version.release"),
    ("dumpsys", "thermalservice"),
    ("dumpsys", "battery"),
    ("cat", "/sys/class/power_supply/battery/current_now"),
    ("cat", "/sys/class/power_supply/battery/voltage_now"),
    ("cat", "/proc/cpuinfo"),
    ("cat", "/proc/meminfo"),
    ("cat", "/proc/loadavg"),
)


ANDROID_CLOCKS = (
    "for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do "
    "echo $f $(cat $f 2>/dev/null); done"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How a latency is measured.

    Attributes:
        threads: Of the runtime.
        warmup: Untimed runs, at least.
        warmup_seconds: They take so long, at least: a governor needs it to raise the clock.
        runs: Timed runs, at least.
        seconds: They take so long, at least.
    """

    threads: int = 1
    warmup: int = 10
    warmup_seconds: float = 0.5
    runs: int = 60
    seconds: float = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardMeasurement:
    """A latency measured on a board, with all that is needed to judge it.

    Attributes:
        basis: Always ``measured``.
        where: The board.
        delegate: What computed, as the runtime itself said it.
        cpus: That the threads were kept on; empty where they could not be.
        timing: Of one inference.
        pre_ms: Median of filling the input from pixels of its own size; None without a contract.
            So is ``post_ms``, of decoding and NMS.
        open_ms: Of loading the file.
        others_busy: CPUs that other processes kept busy meanwhile; None where that is not told.
        peak_bytes: Highest resident memory of the process that ran it, runtime included.
        power_w: Drawn by the board meanwhile.
        invalid: Why the figure cannot be trusted; empty where it can.
        notes: What else one should know.
    """

    basis: Basis = Basis.MEASURED
    where: str
    runtime: str
    runtime_version: str
    delegate: str
    threads: int
    cpus: tuple[int, ...] = ()
    timing: Timing
    pre_ms: float | None = None
    post_ms: float | None = None
    open_ms: float | None = None
    others_busy: float | None = None
    peak_bytes: int | None = None
    power_w: float | None = None
    before: BoardState
    after: BoardState
    invalid: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def measure(work: Workspace, model: Path, protocol: Protocol) -> BoardMeasurement:
    """Returns the latency of a file in the runtime that the board has, timed by ``agent.py``.

    Raises:
        RunError: The board is out of reach, or has no Python or no runtime for the file.
    """
    command = [
        work.python, "agent.py", "time", model.name, "--threads", str(protocol.threads),
        "--warmup", str(protocol.warmup), "--warmup-seconds", str(protocol.warmup_seconds),
        "--runs", str(protocol.runs), "--seconds", str(protocol.seconds),
        *_push_with_contract(work, model),
    ]  # fmt: skip
    found = _answer(work, command)
    before, after = board_state(found["before"]), board_state(found["after"])
    seconds = np.array(found["inference_s"])
    timing = _timing(seconds, found)
    return BoardMeasurement(
        where=before.model,
        runtime=found["runtime"],
        runtime_version=found["runtime_version"],
        delegate=found["delegate"],
        threads=found["threads"],
        cpus=tuple(found["cpus"]),
        timing=timing,
        pre_ms=_median_ms(found["pre_s"]),
        post_ms=_median_ms(found["post_s"]),
        open_ms=1e3 * found["open_s"],
        others_busy=found["others_busy"],
        peak_bytes=found["peak_rss_bytes"],
        power_w=tegrastats_power(found["tegrastats"]) or after.power_w,
        before=before,
        after=after,
        invalid=slowed(before, after, found["tegrastats"]),
        notes=_notes(timing, found["others_busy"], after),
    )


def measure_with_benchmark_model(
    work: Workspace, model: Path, protocol: Protocol, program: Path | None, options: Sequence[str]
) -> BoardMeasurement:
    """Returns the latency of a ``.tflite`` file on Android, timed by TFLite's own program.

    Args:
        work: A folder on the device.
        model: The file.
        protocol: As everywhere.
        program: ``benchmark_model`` for the device; None for one that lies in ``/data/local/tmp``.
        options: Passed on to it, such as ``--use_gpu=true``.

    Raises:
        RunError: The device is out of reach, or the program fails or prints no time.
        ModelError: The file is no ``.tflite``.
    """
    if model.suffix != ".tflite":
        raise ModelError(f"{model}: benchmark_model runs .tflite files alone")
    if program:
        work.push(program, model)
        work.run(["chmod", "+x", program.name])
    else:
        work.push(model)
    before = _android_state(work)
    command = [
        f"./{program.name}" if program else f"{ANDROID_TEMPORARY}/benchmark_model",
        f"--graph={model.name}",
        f"--num_threads={protocol.threads}",
        f"--warmup_runs={protocol.warmup}",
        f"--num_runs={protocol.runs}",
        f"--min_secs={protocol.seconds:g}",
        "--report_peak_memory_footprint=true",
        *options,
    ]
    done = work.run(command)
    after = _android_state(work)
    timing = read_benchmark_model(done.stdout + done.stderr)
    return BoardMeasurement(
        where=before.model,
        runtime="tflite benchmark_model",
        runtime_version="not told",
        delegate=timing.delegate,
        threads=protocol.threads,
        timing=timing,
        peak_bytes=timing.memory_bytes,
        power_w=after.power_w,
        before=before,
        after=after,
        invalid=slowed(before, after),
        notes=(*timing.warnings, *_notes(timing, None, after)),
    )


def measure_with_trtexec(
    work: Workspace, model: Path, protocol: Protocol, options: Sequence[str]
) -> BoardMeasurement:
    """Returns the latency of an ``.onnx`` file in TensorRT, timed by ``trtexec`` on a Jetson.

    The engine is built there first, which may take minutes. Transfers are left out, so that
    versions before 11 and since measure the same.

    Args:
        work: A folder on the board.
        model: The file.
        protocol: As everywhere; threads say nothing here.
        options: Of precision, as the bundle names them for the board's version.

    Raises:
        RunError: The board is out of reach, has no trtexec, or that fails.
        ModelError: The file is no ``.onnx``.
    """
    if model.suffix != ".onnx":
        raise ModelError(f"{model}: trtexec builds engines of .onnx files alone")
    work.push(_beside("agent.py"), model)
    facts = _answer(work, [work.python, "agent.py", "facts"])
    if "trtexec" not in facts:
        raise RunError(f"{work.board}: no trtexec; it comes with JetPack in /usr/src/tensorrt/bin")
    command = [
        work.python, "agent.py", "watch", "--", facts["trtexec"], f"--onnx={model.name}",
        f"--iterations={protocol.runs}", f"--duration={max(1, round(protocol.seconds))}", *options,
    ]  # fmt: skip
    found = _answer(work, command)
    timing = read_trtexec(found["output"])
    before, after = board_state(found["before"]), board_state(found["after"])
    software = after.software or {}
    return BoardMeasurement(
        where=before.model,
        runtime="tensorrt",
        runtime_version=software.get("tensorrt") or software.get("libnvinfer-bin") or "not told",
        delegate="gpu",
        threads=1,
        timing=timing,
        power_w=tegrastats_power(found["tegrastats"]) or after.power_w,
        before=before,
        after=after,
        invalid=slowed(before, after, found["tegrastats"]),
        notes=(*timing.warnings, *_notes(timing, None, after)),
    )


def probe(work: Workspace) -> tuple[dict[str, str], float]:
    """Returns what a board tells of itself, and 10^9 bytes a second that one core of it copies.

    Raises:
        RunError: The board is out of reach or has no Python.
    """
    work.push(_beside("agent.py"))
    facts: dict[str, str] = _answer(work, [work.python, "agent.py", "facts"])
    copied = _answer(work, [work.python, "agent.py", "copy"])
    return facts, copied["copied_bytes_s"] / 1e9


class BoardCompute:
    """The outputs of a file as a board computes them: for the accuracy that ships.

    Args:
        work: A folder on the board.
        model: The file.
        threads: Of the runtime there.
    """

    def __init__(self, work: Workspace, model: Path, threads: int) -> None:
        self._work = work
        self._command = [work.python, "agent.py", "compute", model.name, "in.npz", "out.npz"]
        self._command += ["--threads", str(threads), *_push_with_contract(work, model)]

    def __call__(self, tensors: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
        """Returns the outputs of every input.

        Raises:
            RunError: The board is out of reach, or cannot run the file.
        """
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder) / "in.npz", Path(folder) / "out.npz"
            with given.open("wb") as stream:
                named: dict[str, Any] = {str(index): item for index, item in enumerate(tensors)}
                np.savez(stream, **named)
            self._work.push(given)
            _answer(self._work, self._command)
            self._work.pull("out.npz", found)
            with np.load(found) as archive:
                count = len(archive.files) // len(tensors)
                return [
                    [archive[f"{index}/{output}"] for output in range(count)]
                    for index in range(len(tensors))
                ]


def as_latency(found: BoardMeasurement) -> Latency:
    """Returns a measurement as the row of a report has it.

    Raises:
        RunError: The program that timed it told no median.
    """
    timing = found.timing
    if timing.median_ms is None:
        raise RunError(f"{found.where}: {found.runtime} told no median")
    before, after = found.before.described(), found.after.described()
    state = {
        name: text if before.get(name, text) == text else f"{before[name]} to {text}"
        for name, text in after.items()
        if name != "board"
    }
    return Latency(
        basis=Basis.MEASURED,
        where=found.where,
        runtime=found.runtime,
        runtime_version=found.runtime_version,
        delegate=found.delegate,
        threads=found.threads,
        median_ms=timing.median_ms,
        p90_ms=timing.percentiles_ms.get(90),
        p99_ms=timing.percentiles_ms.get(99),
        runs=timing.runs or 0,
        pre_ms=found.pre_ms,
        post_ms=found.post_ms,
        conditions=state | {"cpus": ",".join(map(str, found.cpus)) or "not pinned"},
        note="; ".join((*(f"INVALID: {reason}" for reason in found.invalid), *found.notes)),
    )


def measurement_lines(found: BoardMeasurement) -> list[str]:
    """Returns what people want to know of a measurement."""
    timing = found.timing
    name, value = timing.headline
    tail = "".join(
        f", p{percent} {ms:.3f}" for percent, ms in sorted(timing.percentiles_ms.items())
    )
    lines = [
        f"measured on {found.where}: {name} {value:.3f} ms{tail}, n {timing.runs or 'not told'} "
        f"({found.runtime} {found.runtime_version}, {found.delegate}, {found.threads} threads)"
    ]
    parts = {
        "first": timing.first_ms,
        "open": found.open_ms,
        "pre": found.pre_ms,
        "post": found.post_ms,
    }
    told = [f"{part} {ms:.3f} ms" for part, ms in parts.items() if ms is not None]
    if found.peak_bytes is not None:
        told.append(f"peak memory {found.peak_bytes / 2**20:.1f} MiB")
    if found.power_w is not None:
        told.append(f"{found.power_w:.2f} W")
    lines += [f"  {', '.join(told)}"] if told else []
    state = [f"{key} {text}" for key, text in found.after.described().items() if key != "board"]
    lines += [f"  {', '.join(state)}"] if state else []
    lines += [f"  note: {note}" for note in found.notes]
    lines += [f"  INVALID: {reason}" for reason in found.invalid]
    return lines


def _push_with_contract(work: Workspace, model: Path) -> list[str]:
    """Copies agent and model, and for a file of ours contract and decoder; returns the option."""
    try:
        contract = read_contract(model)
    except ModelError:
        work.push(_beside("agent.py"), model)
        return []
    with tempfile.TemporaryDirectory() as staged:
        path = Path(staged) / "contract.json"
        path.write_text(json.dumps(to_mapping(contract)), encoding="utf-8")
        work.push(_beside("agent.py"), model, _beside("decoder.py"), path)
    return ["--contract", path.name]


def _beside(name: str) -> Path:
    return standalone_file(name)


def _answer(work: Workspace, command: Sequence[str]) -> dict[str, Any]:
    done = work.run(command)
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as broken:
        raise RunError(f"{work.board}: agent.py gave no answer: {last_line(done)}") from broken
    return found


def _android_state(work: Workspace) -> BoardState:
    return board_state(probe_android(work))


def probe_android(work: Workspace) -> dict[str, str]:
    """Returns what a device without Python tells of itself: the same texts, asked one by one."""
    facts: dict[str, str] = {}
    for command in ANDROID_FACTS:
        # What a vendor hides or lacks is left out: 1 and 255 are how the shell says so.
        done = work.run(command, accepted=range(256))
        key = command[1] if command[0] == "cat" else " ".join(command)
        if done.returncode == 0 and done.stdout.strip():
            facts[key] = done.stdout.strip()
    clocks = work.run(["sh", "-c", ANDROID_CLOCKS], accepted=range(256))
    facts |= dict(line.split(" ", 1) for line in clocks.stdout.splitlines() if " " in line)
    return facts


def _timing(seconds: np.ndarray[Any, Any], found: Mapping[str, Any]) -> Timing:
    ms = seconds * 1e3
    return Timing(
        runs=len(ms),
        min_ms=float(ms.min()),
        max_ms=float(ms.max()),
        mean_ms=float(ms.mean()),
        median_ms=float(np.median(ms)),
        percentiles_ms={p: float(np.percentile(ms, p)) for p in (90, 99)},
        std_ms=float(ms.std()),
        first_ms=1e3 * found["first_s"],
        delegate=found["delegate"],
    )


def _notes(timing: Timing, others: float | None, state: BoardState) -> tuple[str, ...]:
    notes = []
    if others is not None and others > BUSY_CPUS:
        notes.append(f"the board was busy: other processes kept {others:.1f} CPUs at work")
    late, median = timing.percentiles_ms.get(90), timing.median_ms
    if late is not None and median and late > (1 + UNSTABLE) * median:
        notes.append(f"runs vary: the 90th percentile is {late / median - 1:.0%} over the median")
    if state.plugged:
        notes.append("the device was on external power, which heats it and hides what it draws")
    slow = {"powersave", "ondemand", "schedutil", "conservative", "userspace"} & set(
        state.governors
    )
    if slow:
        notes.append(f"clocks are not held up: governor {', '.join(sorted(slow))}")
    if state.gpu_clocks_mhz and state.gpu_clocks_mhz[0] < state.gpu_clocks_mhz[1]:
        low, high = state.gpu_clocks_mhz
        notes.append(
            f"the GPU's clock may move from {low:.0f} to {high:.0f} MHz: see jetson_clocks"
        )
    return tuple(notes)


def _median_ms(seconds: Sequence[float]) -> float | None:
    return 1e3 * float(np.median(seconds)) if seconds else None
