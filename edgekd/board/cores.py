"""The CPU cores of a board, of what Linux tells of them: kind, clock and int8 instructions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Instructions = Literal["mlal", "sdot", "i8mm"]

# By implementer and part (Arm's "Main ID Register"): name, and operations a cycle of one core in
# float32, float16 and int8. Measured by cpufp (github.com/pigirons/cpufp at 93e165e) on A53, A55,
# A72, A76, A520 and A720, of the others by the width of their pipes.
MICROARCHITECTURES: dict[tuple[int, int], tuple[str, float, float | None, float]] = {
    (0x41, 0xD03): ("Cortex-A53", 8, None, 16),
    (0x41, 0xD04): ("Cortex-A35", 4, None, 8),
    (0x41, 0xD05): ("Cortex-A55", 8, 16, 32),
    (0x41, 0xD07): ("Cortex-A57", 8, None, 16),
    (0x41, 0xD08): ("Cortex-A72", 8, None, 16),
    (0x41, 0xD09): ("Cortex-A73", 8, None, 16),
    (0x41, 0xD0A): ("Cortex-A75", 16, 32, 64),
    (0x41, 0xD0B): ("Cortex-A76", 16, 32, 64),
    (0x41, 0xD0D): ("Cortex-A77", 16, 32, 64),
    (0x41, 0xD41): ("Cortex-A78", 16, 32, 64),
    (0x41, 0xD42): ("Cortex-A78AE", 16, 32, 64),
    (0x41, 0xD4B): ("Cortex-A78C", 16, 32, 64),
    (0x41, 0xD44): ("Cortex-X1", 32, 64, 128),
    (0x41, 0xD46): ("Cortex-A510", 8, 16, 64),
    (0x41, 0xD47): ("Cortex-A710", 16, 32, 128),
    (0x41, 0xD48): ("Cortex-X2", 32, 64, 256),
    (0x41, 0xD4D): ("Cortex-A715", 16, 32, 128),
    (0x41, 0xD4E): ("Cortex-X3", 32, 64, 256),
    (0x41, 0xD80): ("Cortex-A520", 8, 16, 64),
    (0x41, 0xD81): ("Cortex-A720", 16, 32, 128),
    (0x41, 0xD82): ("Cortex-X4", 32, 64, 256),
    (0x4E, 0x003): ("Denver 2", 8, None, 16),
    (0x4E, 0x004): ("Carmel", 16, 32, 32),
    (0x51, 0x800): ("Kryo 260 Gold", 8, None, 16),
    (0x51, 0x801): ("Kryo 260 Silver", 8, None, 16),
    (0x51, 0x802): ("Kryo 385 Gold", 16, 32, 64),
    (0x51, 0x803): ("Kryo 385 Silver", 8, 16, 32),
    (0x51, 0x804): ("Kryo 485 Gold", 16, 32, 64),
    (0x51, 0x805): ("Kryo 485 Silver", 8, 16, 32),
}
WIDE = ("Cortex-X1", "Cortex-X2", "Cortex-X3", "Cortex-X4")
"""Cores that reach no more than 0.45 of those rates in ncnn's published latencies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cores:
    """Equal cores of a board.

    Attributes:
        uarch: None where the part is not in `MICROARCHITECTURES`; its number stands in ``part``.
        part: Implementer and part, such as ``0x41 0xd0b``.
        clock_ghz: Highest; None where the system tells none.
    """

    count: int
    uarch: str | None
    part: str
    clock_ghz: float | None
    int8: Instructions
    rates: tuple[float, float | None, float]


def instructions(features: frozenset[str] | tuple[str, ...]) -> Instructions | None:
    """Returns what int8 kernels are built on, of Linux' names of a CPU's extensions.

    None for a CPU without Arm's vector instructions.
    """
    if "asimd" not in features and "neon" not in features:
        return None
    return "i8mm" if "i8mm" in features else "sdot" if "asimddp" in features else "mlal"


def board_cores(facts: Mapping[str, str]) -> tuple[Cores, ...]:
    """Returns the cores of a board, fastest first; empty where it is none of Arm's kind.

    Args:
        facts: Texts by path, as `edgekd.standalone.agent` collects them.
    """
    groups: dict[tuple[str, float | None, Instructions], int] = {}
    for block in re.split(r"\n\s*\n", facts.get("/proc/cpuinfo", "")):
        found = dict(re.findall(r"(?m)^([^:\n]+?)\s*:[ \t]*(.*)$", block))
        int8 = instructions(frozenset(found.get("Features", "").split()))
        if "CPU part" not in found or "processor" not in found or int8 is None:
            continue
        path = f"/sys/devices/system/cpu/cpu{found['processor']}/cpufreq/cpuinfo_max_freq"
        clock = facts.get(path, "")
        ghz = round(int(clock) / 1e6, 3) if clock.isdigit() else None
        numbers = [int(found.get(f"CPU {key}", "0"), 16) for key in ("implementer", "part")]
        part = f"{numbers[0]:#04x} {numbers[1]:#05x}"
        key = part, ghz, int8
        groups[key] = groups.get(key, 0) + 1
    cores = [_cores(*key, count) for key, count in groups.items()]
    return tuple(sorted(cores, key=lambda one: -(one.clock_ghz or 1) * one.rates[0]))


def _cores(part: str, ghz: float | None, int8: Instructions, count: int) -> Cores:
    implementer, number = (int(text, 16) for text in part.split())
    known = MICROARCHITECTURES.get((implementer, number))
    rates = known[1:] if known else (8.0, None, {"mlal": 16.0, "sdot": 32.0, "i8mm": 64.0}[int8])
    return Cores(
        count=count,
        uarch=known[0] if known else None,
        part=part,
        clock_ghz=ghz,
        int8=int8,
        rates=rates,
    )
