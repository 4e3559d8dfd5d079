"""What this machine can do for EdgeKD, and what is wrong with it.

Every library is tried in a process of its own (`edgekd.commands.library_checks`), so that one which
crashes is a finding and not the end. Nothing is installed, changed or sent.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from edgekd.commands.library_checks import PROBES
from edgekd.core import host as machine
from edgekd.core.subprocesses import IsolatedError, last_line

Level = Literal["ok", "advice", "error"]

OPTIONAL = ("tflite-runtime", "torchvision")
"""Tried where they are installed, missed by nobody where they are not."""

CONVERTER = "litert-torch"
"""Has no wheels for some systems; there EdgeKD writes and proves ONNX files alone."""

TOOLS = {
    "ssh": "boards with `edgekd verify --host`",
    "adb": "Android devices over USB",
    "trtexec": "TensorRT engines, on a Jetson",
}

GIB = 2**30
NEEDED_DISK, COMFORTABLE_DISK = 1 * GIB, 10 * GIB
NEEDED_MEMORY = 2 * GIB
PROBE_SECONDS = 300.0

X86_FEATURES = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni",
    "avx_vnni": "avx-vnni",
    "avx512_bf16": "avx512-bf16",
    "amx_int8": "amx-int8",
}
ARM_FEATURES = {
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "sdot",
    "i8mm": "i8mm",
    "bf16": "bf16",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        subject: What it is about: ``cpu``, ``disk``, a package.
        remedy: What to do; empty where nothing is wrong.
    """

    level: Level
    subject: str
    message: str
    remedy: str = ""


def examine(folder: Path) -> list[Finding]:
    """Returns everything worth knowing before a run that will write into ``folder``."""
    probes, cpus = run_probes(), machine.usable_cpus()
    return [
        *processor(machine.cpu_model(), machine.cpu_flags(), cpus, os.environ),
        *memory(machine.usable_memory()),
        *disk(folder),
        *packages(),
        *libraries(probes),
        *graphics(probes),
        *tools(),
        *timing(machine.conditions(), cpus),
    ]


def processor(
    model: str, flags: frozenset[str], cpus: float, environment: Mapping[str, str]
) -> Iterator[Finding]:
    """Yields the CPU with what matters of its instruction set, and settings that slow it."""
    known = {**X86_FEATURES, **ARM_FEATURES}
    features = [name for flag, name in known.items() if flag in flags]
    said = ", ".join(features) or "no vector instructions known to EdgeKD"
    yield Finding(level="ok", subject="cpu", message=f"{model}, {cpus:g} usable: {said}")
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) < int(cpus):
        yield Finding(
            level="advice",
            subject="cpu",
            message=f"OMP_NUM_THREADS={threads} leaves {int(cpus) - int(threads)} CPUs idle",
            remedy="unset it, unless runs share this machine",
        )


def memory(usable: int | None) -> Iterator[Finding]:
    """Yields the memory that this process may use, in bytes; None where that is not known."""
    if usable is None:
        return
    if usable < NEEDED_MEMORY:
        yield Finding(
            level="error",
            subject="memory",
            message=f"{usable / GIB:.1f} GiB usable, a run needs {NEEDED_MEMORY / GIB:.0f} GiB",
            remedy="use a smaller distill.training.batch_size, or a larger machine",
        )
    else:
        yield Finding(level="ok", subject="memory", message=f"{usable / GIB:.1f} GiB usable")


def disk(folder: Path) -> Iterator[Finding]:
    """Yields the space where runs are written."""
    try:
        existing = next(p for p in (folder, *folder.resolve().parents) if p.is_dir())
        free = shutil.disk_usage(existing).free
    except OSError as error:
        yield Finding(level="error", subject="disk", message=f"{folder}: {error}")
        return
    message = f"{free / GIB:.1f} GiB free in {existing}"
    if not os.access(existing, os.W_OK):
        yield Finding(
            level="error", subject="disk", message=f"{existing} cannot be written",
            remedy="choose another folder with --out",
        )  # fmt: skip
    elif free < NEEDED_DISK:
        yield Finding(
            level="error", subject="disk", message=message, remedy="free some, or choose --out"
        )
    elif free < COMFORTABLE_DISK:
        yield Finding(
            level="advice", subject="disk", message=message,
            remedy="enough for a run, not for a cache of teacher features",
        )  # fmt: skip
    else:
        yield Finding(level="ok", subject="disk", message=message)


def packages() -> Iterator[Finding]:
    """Yields required packages that are missing or of another version than EdgeKD was made for."""
    lines = requires("edgekd") or []
    wanted = [r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate()]
    bad = 0
    for requirement in wanted:
        found = installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            bad += 1
            yield Finding(
                level="error",
                subject=requirement.name,
                message=f"{found or 'missing'}; EdgeKD wants {requirement.specifier}",
                remedy=f"pip install '{requirement}'",
            )
    if any(r.name == CONVERTER for r in map(Requirement, lines) if r not in wanted):
        yield Finding(
            level="advice",
            subject=CONVERTER,
            message=f"no wheel for {platform.system()} on {platform.machine()}: no TFLite files",
            remedy="export them on Linux on x86-64 or macOS on arm64; ONNX files are made here",
        )
    if not bad:
        yield Finding(level="ok", subject="packages", message=f"all {len(wanted)} as required")


def libraries(probes: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yields what became of every probe."""
    for name, facts in probes.items():
        found = installed(name) or "version unknown"
        optional = name in OPTIONAL
        if not facts.get("works"):
            said = facts.get("error", "ran, and computed something else than it should")
            yield Finding(
                level="advice" if optional else "error",
                subject=name,
                message=f"{found}: {said}",
                remedy=_remedy(name),
            )
        elif facts.get("exact") is False:
            yield Finding(
                level="advice",
                subject=name,
                message=f"{found} saturates in uint8 x int8: this CPU has no VNNI",
                remedy="EdgeKD sets session.x64quantprecision for int8-host.onnx; do so where your "
                "own code runs it here; boards are not affected",
            )
        else:
            yield Finding(level="ok", subject=name, message=f"{found}{_praise(facts)}")


def graphics(probes: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yields the GPUs that training may use."""
    for card in probes.get("torch", {}).get("gpus") or [
        "none that torch can use; training takes CPUs"
    ]:
        yield Finding(level="ok", subject="gpu", message=card)


def tools() -> Iterator[Finding]:
    """Yields the programs through which boards are reached."""
    for tool, purpose in TOOLS.items():
        path = shutil.which(tool)
        yield Finding(level="ok", subject=tool, message=path or f"not here; it reaches {purpose}")


def timing(conditions: Mapping[str, str], cpus: float) -> Iterator[Finding]:
    """Yields what would spoil a latency measured now."""
    load = float(conditions.get("load_1min", 0))
    if load > 0.3 * cpus:
        yield Finding(
            level="advice",
            subject="timing",
            message=f"this machine is busy (load {load:g} on {cpus:g} CPUs)",
            remedy="measure latency when it is idle",
        )
    if conditions.get("governor") == "powersave":
        yield Finding(
            level="advice",
            subject="timing",
            message="the CPU governor is powersave: latencies are those of a sleepy clock",
            remedy="sudo cpupower frequency-set -g performance",
        )


def run_probes() -> dict[str, dict[str, Any]]:
    """Returns what every probe found, under ``error`` why it could not; optional ones if there."""
    # Where the converter to TFLite is not installed `packages` says whether it should be.
    needless = (*OPTIONAL, CONVERTER)
    names = [name for name in PROBES if name not in needless or installed(name)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(names, pool.map(run_probe, names), strict=True))


def run_probe(name: str, timeout_s: float = PROBE_SECONDS) -> dict[str, Any]:
    """Returns a probe's facts, or ``error`` with the last line of what it said."""
    try:
        facts: dict[str, Any] = json.loads(
            last_line("edgekd.commands.library_checks", name, timeout_s=timeout_s)
        )
    except IsolatedError as error:
        return {"error": str(error)}
    return facts


def installed(name: str) -> str | None:
    """Returns the version of a package, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def lines(findings: list[Finding]) -> Iterator[str]:
    """Yields what people read."""
    for finding in findings:
        yield f"{finding.level:<8}{finding.subject:<20}{finding.message}"
        if finding.remedy:
            yield f"{'':<28}-> {finding.remedy}"
    errors = sum(f.level == "error" for f in findings)
    advice = sum(f.level == "advice" for f in findings)
    yield f"errors: {errors}, advice: {advice}"


def _remedy(name: str) -> str:
    if name == "tflite-runtime":
        return "it needs numpy 1, the rest needs numpy 2: give it an environment of its own"
    if name == "torchvision":
        return "only teachers of your own that import it need it"
    return f"pip install --force-reinstall {name}"


def _praise(facts: Mapping[str, Any]) -> str:
    if "exact" in facts:
        return ", int8 exact"
    if "delegate" in facts:
        return ", int8 exact" + (", XNNPACK" if facts["delegate"] else ", without XNNPACK")
    if "threads" in facts:
        return f", {facts['threads']} threads"
    return ""
