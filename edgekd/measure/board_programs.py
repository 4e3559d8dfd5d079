"""Files timed by the programs that boards come with: TFLite's benchmark_model, NVIDIA's trtexec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.board.logs import read_benchmark_model, read_trtexec
from edgekd.board.state import BoardState, board_state, slowed, tegrastats_power
from edgekd.board.transport import ANDROID_TEMPORARY, Workspace
from edgekd.core.errors import ModelError, RunError
from edgekd.measure.on_board import BoardMeasurement, Protocol, agent_answer, timing_notes
from edgekd.standalone import standalone_file

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
        notes=(*timing.warnings, *timing_notes(timing, None, after)),
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
    work.push(standalone_file("agent.py"), model)
    facts = agent_answer(work, [work.python, "agent.py", "facts"])
    if "trtexec" not in facts:
        raise RunError(f"{work.board}: no trtexec; it comes with JetPack in /usr/src/tensorrt/bin")
    command = [
        work.python, "agent.py", "watch", "--", facts["trtexec"], f"--onnx={model.name}",
        f"--iterations={protocol.runs}", f"--duration={max(1, round(protocol.seconds))}", *options,
    ]  # fmt: skip
    found = agent_answer(work, command)
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
        notes=(*timing.warnings, *timing_notes(timing, None, after)),
    )


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
