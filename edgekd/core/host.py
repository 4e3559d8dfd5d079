"""What is known of the computer that this runs on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def cpu_model(root: Path = _ROOT) -> str:
    """Returns the CPU's or, on boards that do not name it, the board's model."""
    for key, value in entries(root / "proc/cpuinfo"):
        if key in ("model name", "Model", "Hardware") and value:
            return value
    board = _read(root / "proc/device-tree/model").strip("\0\n ")
    return board or platform.processor() or platform.machine()


def cpu_flags(root: Path = _ROOT) -> frozenset[str]:
    """Returns the instruction set extensions as Linux names them; empty where it does not."""
    for key, value in entries(root / "proc/cpuinfo"):
        if key in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_vendor(root: Path = _ROOT) -> str:
    """Returns who made an x86 processor, as it says itself (``GenuineIntel``); else nothing."""
    return dict(entries(root / "proc/cpuinfo")).get("vendor_id", "")


def is_x86() -> bool:
    """Returns whether this is a 64-bit Intel or AMD processor."""
    return platform.machine().lower() in ("x86_64", "amd64")


def usable_cpus(root: Path = _ROOT) -> float:
    """Returns how many CPUs this process may use, in a container also a fraction of one."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota, _, period = _read(root / "sys/fs/cgroup/cpu.max").strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        return min(float(count), int(quota) / int(period))
    return float(count)


def usable_memory(root: Path = _ROOT) -> int | None:
    """Returns how many bytes are available, a container's limit considered; None if not told."""
    told = dict(entries(root / "proc/meminfo")).get("MemAvailable")
    available = 1024 * int(told.split()[0]) if told else None
    limit = _read(root / "sys/fs/cgroup/memory.max").strip()
    used = _read(root / "sys/fs/cgroup/memory.current").strip()
    if available is not None and limit.isdigit() and used.isdigit():
        return min(available, max(0, int(limit) - int(used)))
    return available


def conditions(root: Path = _ROOT) -> dict[str, str]:
    """Returns the governor, clock, temperature and load where the system tells them."""
    policy = root / "sys/devices/system/cpu/cpu0/cpufreq"
    known = {"governor": _read(policy / "scaling_governor").strip()}
    clock = _read(policy / "scaling_cur_freq").strip()
    if clock.isdigit():
        known["clock_mhz"] = f"{int(clock) / 1e3:.0f}"
    zones = [_read(zone).strip() for zone in root.glob("sys/class/thermal/thermal_zone*/temp")]
    degrees = [int(text) / 1e3 for text in zones if text.lstrip("-").isdigit()]
    if degrees:
        known["temperature_c"] = f"{max(degrees):.1f}"
    load = _read(root / "proc/loadavg").split()
    if load:
        known["load_1min"] = load[0]
    return {name: value for name, value in known.items() if value}


def entries(path: Path) -> Iterator[tuple[str, str]]:
    """Yields key and value of every line ``key: value``; nothing where there is no such file."""
    for line in _read(path).splitlines():
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
