"""Measures a file where it will run: one protocol over this computer, ssh and adb.

Warm up at least ten runs and half a second; time at least sixty runs and three seconds, each by
itself, on as many of the fastest CPUs as there are threads; read clocks, heat and throttling
before and after. A run during which the board was slowed down is marked invalid, and a board that
does other work at the same time is said to be busy.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.board.logs import Timing
from edgekd.board.state import BoardState, board_state, slowed, tegrastats_power
from edgekd.board.transport import Workspace, last_line
from edgekd.config.decoders import decoder_files
from edgekd.core.errors import ModelError, RunError
from edgekd.core.results import Basis, Latency
from edgekd.core.serialize import to_mapping
from edgekd.modelfile.contract import read_contract
from edgekd.standalone import standalone_file

BUSY_CPUS = 0.25
"""CPUs kept busy by other processes, from which on a board counts as busy."""

UNSTABLE = 0.1
"""Share by which the 90th percentile may exceed the median before clocks are in doubt."""


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
    found = agent_answer(work, command)
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
        notes=timing_notes(timing, found["others_busy"], after),
    )


def probe(work: Workspace) -> tuple[dict[str, str], float]:
    """Returns what a board tells of itself, and 10^9 bytes a second that one core of it copies.

    Raises:
        RunError: The board is out of reach or has no Python.
    """
    work.push(standalone_file("agent.py"))
    facts: dict[str, str] = agent_answer(work, [work.python, "agent.py", "facts"])
    copied = agent_answer(work, [work.python, "agent.py", "copy"])
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
            agent_answer(self._work, self._command)
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
        p90_ms=timing.percentiles_ms.get("90"),
        p99_ms=timing.percentiles_ms.get("99"),
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
        f", p{percent} {ms:.3f}"
        for percent, ms in sorted(timing.percentiles_ms.items(), key=lambda item: float(item[0]))
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
        work.push(standalone_file("agent.py"), model)
        return []
    with tempfile.TemporaryDirectory() as staged:
        path = Path(staged) / "contract.json"
        path.write_text(json.dumps(to_mapping(contract)), encoding="utf-8")
        sources = decoder_files(contract.decoding.decoder)
        for name, source in sources.items():
            shutil.copyfile(source, Path(staged) / name)
        staged_files = (path, *(Path(staged) / name for name in sources))
        work.push(standalone_file("agent.py"), model, *staged_files)
    return ["--contract", path.name]


def agent_answer(work: Workspace, command: Sequence[str]) -> dict[str, Any]:
    """Returns the line of JSON that a command of ``agent.py`` ends with on a board.

    Raises:
        RunError: It ends with none.
    """
    done = work.run(command)
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as broken:
        raise RunError(f"{work.board}: agent.py gave no answer: {last_line(done)}") from broken
    return found


def _timing(seconds: np.ndarray[Any, Any], found: Mapping[str, Any]) -> Timing:
    ms = seconds * 1e3
    return Timing(
        runs=len(ms),
        min_ms=float(ms.min()),
        max_ms=float(ms.max()),
        mean_ms=float(ms.mean()),
        median_ms=float(np.median(ms)),
        percentiles_ms={str(p): float(np.percentile(ms, p)) for p in (90, 99)},
        std_ms=float(ms.std()),
        first_ms=1e3 * found["first_s"],
        delegate=found["delegate"],
    )


def timing_notes(timing: Timing, others: float | None, state: BoardState) -> tuple[str, ...]:
    """Returns what a reader has to know of a measurement: a busy board, times that drift."""
    notes = []
    if others is not None and others > BUSY_CPUS:
        notes.append(f"the board was busy: other processes kept {others:.1f} CPUs at work")
    late, median = timing.percentiles_ms.get("90"), timing.median_ms
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
