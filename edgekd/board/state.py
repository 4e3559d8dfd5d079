"""What the texts that a board tells of itself mean: clocks, heat, throttling, power mode.

`edgekd.standalone.agent` collects the texts; over adb, where no Python is, the same files are read
by `cat`. Formats of ``vcgencmd``, ``nvpmodel``, ``tegrastats`` and ``dumpsys`` are those that
Raspberry Pi, NVIDIA and Android document or print.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

THROTTLE_BITS = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Of ``vcgencmd get_throttled``, now; 16 higher since boot."""

THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Of Android's thermal service, by number."""

LEAST_WATTS = 0.05
"""Less than any phone draws while it computes."""

Facts = Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardState:
    """A board at one moment. What it does not tell is None or empty.

    Attributes:
        model: Of the board, or of its CPU.
        flags: Instruction set extensions.
        governors: Of the CPUs, each kind once.
        clock_mhz: Highest clock of any CPU now; on a Raspberry Pi the firmware's, which may be
            lower than the one that Linux asked for.
        max_clock_mhz: Highest clock that any CPU may have.
        gpu_clocks_mhz: Lowest and highest that the GPU may have; equal means locked.
        temperature_c: Of the hottest zone.
        throttled: What slows the board down now, in words.
        throttled_since_boot: What once did.
        power_mode: Of a Jetson, by name.
        power_w: Drawn by the board, from its own sensors; on Android from the battery, unplugged.
        plugged: Whether a device with a battery is on external power.
        memory_bytes: In all.
        load: Processes that wanted to run, over the last minute.
        system: Kernel and machine.
        runtimes: Installed runtimes with their versions.
        software: Other versions that matter: JetPack, TensorRT, L4T.
    """

    model: str
    flags: tuple[str, ...] = ()
    governors: tuple[str, ...] = ()
    clock_mhz: float | None = None
    max_clock_mhz: float | None = None
    gpu_clocks_mhz: tuple[float, float] | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    throttled_since_boot: tuple[str, ...] = ()
    power_mode: str | None = None
    power_w: float | None = None
    plugged: bool | None = None
    memory_bytes: int | None = None
    load: float | None = None
    system: str = ""
    runtimes: Mapping[str, str] | None = None
    software: Mapping[str, str] | None = None

    def described(self) -> dict[str, str]:
        """Returns what bears on a measurement, by name, as text."""
        known = {
            "board": self.model,
            "governor": ", ".join(self.governors),
            "clock_mhz": _shown(self.clock_mhz, 0),
            "temperature_c": _shown(self.temperature_c, 1),
            "throttled": ", ".join(self.throttled),
            "power_mode": self.power_mode or "",
            "power_w": _shown(self.power_w, 2),
            "load_1min": _shown(self.load, 2),
        }
        return {name: text for name, text in known.items() if text}


def board_state(facts: Facts) -> BoardState:
    """Returns what the texts say; a text that is not understood says nothing."""
    now, once = throttling(facts.get("vcgencmd get_throttled", ""))
    hot = thermal_status(facts.get("dumpsys thermalservice", ""))
    firmware = _match(r"=(\d+)", facts.get("vcgencmd measure_clock arm", ""))
    clocks = _numbers(facts, r"/cpufreq/scaling_cur_freq$")
    highest = _numbers(facts, r"/cpufreq/cpuinfo_max_freq$")
    return BoardState(
        model=_model(facts),
        flags=_flags(facts),
        governors=tuple(sorted(set(_texts(facts, r"/cpufreq/scaling_governor$")))),
        clock_mhz=float(firmware) / 1e6 if firmware else _most(clocks, 1e-3),
        max_clock_mhz=_most(highest, 1e-3),
        gpu_clocks_mhz=_gpu_clocks(facts),
        temperature_c=_temperature(facts),
        throttled=now + hot,
        throttled_since_boot=once,
        power_mode=power_mode(facts.get("nvpmodel -q", "")),
        power_w=_power(facts),
        plugged=_plugged(facts),
        memory_bytes=_memory(facts),
        load=_number(_match(r"^([\d.]+)", facts.get("/proc/loadavg", ""))),
        system=facts.get("system", ""),
        runtimes={k.removeprefix("runtime "): v for k, v in facts.items() if k[:8] == "runtime "},
        software=_software(facts),
    )


def throttling(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns what slows a Raspberry Pi down now and what did since it was started.

    Args:
        text: Answer of ``vcgencmd get_throttled``, such as ``throttled=0x50005``.
    """
    found = _match(r"throttled=0x([0-9a-fA-F]+)", text)
    bits = int(found, 16) if found else 0
    now = tuple(name for bit, name in THROTTLE_BITS.items() if bits >> bit & 1)
    return now, tuple(name for bit, name in THROTTLE_BITS.items() if bits >> (bit + 16) & 1)


def thermal_status(text: str) -> tuple[str, ...]:
    """Returns Android's thermal status in words where it is not ``none``.

    Args:
        text: Answer of ``dumpsys thermalservice``.
    """
    found = _match(r"Thermal Status: (\d+)", text)
    number = min(int(found), len(THERMAL_STATUS) - 1) if found else 0
    return (f"thermal status {THERMAL_STATUS[number]}",) if number else ()


def android_temperature(text: str) -> float | None:
    """Returns the hottest CPU, GPU or skin in degrees C, of ``dumpsys thermalservice``.

    The block "Current temperatures from HAL" counts; the cached one can be minutes old and is
    taken only where a vendor prints no other.
    """
    _, _, current = text.partition("Current temperatures from HAL:")
    current, _, _ = (current or text).partition("Current cooling devices")
    pattern = r"Temperature\{mValue=(-?[\d.]+), mType=(\d+)"
    values = [float(v) for v, kind in re.findall(pattern, current) if kind in "013"]
    return max(values, default=None)


def power_mode(text: str) -> str | None:
    """Returns the name in an answer of ``nvpmodel -q``: numbers differ between boards."""
    return _match(r"NV Power Mode:\s*(\S+)", text)


def tegrastats_power(lines: Sequence[str]) -> float | None:
    """Returns the mean of what the whole board drew, in watts, over lines of tegrastats."""
    found = [re.search(r"\b(?:VDD_IN|VIN_SYS_5V0|POM_5V_IN) (\d+)", line) for line in lines]
    values = [int(match.group(1)) / 1e3 for match in found if match]
    return sum(values) / len(values) if values else None


def slowed(before: BoardState, after: BoardState, lines: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns why a measurement between two moments cannot be trusted; empty where it can.

    Bits that a Raspberry Pi keeps since it was started count where they are new.

    Args:
        before: The board before it.
        after: The board after it.
        lines: Of tegrastats in between.
    """
    reasons = [*before.throttled, *after.throttled]
    reasons += [
        f"{name}, in between"
        for name in after.throttled_since_boot
        if name not in before.throttled_since_boot and name not in reasons
    ]
    if before.power_mode != after.power_mode:
        reasons.append(f"power mode went from {before.power_mode} to {after.power_mode}")
    if any("throttl" in line.lower() for line in lines):
        reasons.append("tegrastats names throttling")
    return tuple(dict.fromkeys(reasons))


def _model(facts: Facts) -> str:
    board = facts.get("/proc/device-tree/model", "")
    if board:
        return board
    product = facts.get("getprop ro.product.model", "")
    if product:
        chip = facts.get("getprop ro.soc.model", "") or facts.get("getprop ro.board.platform", "")
        return f"{product} ({chip})" if chip else product
    cpuinfo = facts.get("/proc/cpuinfo", "")
    for key in ("model name", "Model", "Hardware"):
        found = _match(rf"(?m)^{key}\s*:\s*(.+)$", cpuinfo)
        if found:
            return found.strip()
    return facts.get("machine", "") or "unknown"


def _flags(facts: Facts) -> tuple[str, ...]:
    found = _match(r"(?m)^(?:flags|Features)\s*:\s*(.+)$", facts.get("/proc/cpuinfo", ""))
    return tuple(sorted(set(found.split()))) if found else ()


def _gpu_clocks(facts: Facts) -> tuple[float, float] | None:
    for path, text in facts.items():
        # ga10b and gv11b are the GPUs of Orin and Xavier, 57000000.gpu that of the Nano.
        if re.search(r"/devfreq/[^/]*(gpu|ga10b|gv11b|gp10b)[^/]*/min_freq$", path):
            highest = facts.get(path.replace("min_freq", "max_freq"), "")
            if text.isdigit() and highest.isdigit():
                return int(text) / 1e6, int(highest) / 1e6
    return None


def _temperature(facts: Facts) -> float | None:
    zones = [value * 1e-3 for value in _numbers(facts, r"/thermal_zone\d+/temp$")]
    told = _number(_match(r"temp=([\d.]+)", facts.get("vcgencmd measure_temp", "")))
    android = android_temperature(facts.get("dumpsys thermalservice", ""))
    return max([*zones, *(v for v in (told, android) if v is not None)], default=None)


def _power(facts: Facts) -> float | None:
    """Returns watts from a Jetson's INA3221 rail for the whole board, or a Pi 5's PMIC."""
    for path, label in facts.items():
        if path.endswith("_label") and label in ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN"):
            volts = facts.get(path.replace("_label", "_input"), "")
            amperes = facts.get(re.sub(r"/in(\d)_label$", r"/curr\1_input", path), "")
            if volts.isdigit() and amperes.isdigit():
                return int(volts) * int(amperes) * 1e-6
    rails = facts.get("vcgencmd pmic_read_adc", "")
    currents = dict(re.findall(r"(\w+)_A current\(\d+\)=([\d.]+)A", rails))
    voltages = dict(re.findall(r"(\w+)_V volt\(\d+\)=([\d.]+)V", rails))
    both = [float(currents[name]) * float(voltages[name]) for name in currents if name in voltages]
    return sum(both) if both else _battery_power(facts)


def _plugged(facts: Facts) -> bool | None:
    found = re.findall(r"(?m)^\s*\w+ powered: (true|false)", facts.get("dumpsys battery", ""))
    return "true" in found if found else None


def _battery_power(facts: Facts) -> float | None:
    """Returns the watts that leave an unplugged battery.

    Android asks for microamperes and microvolts, the sign is the vendor's; some tell milliamperes,
    which no phone lives on: such a figure is left out.
    """
    folder = "/sys/class/power_supply/battery"
    current = _number(_match(r"^-?(\d+)$", facts.get(f"{folder}/current_now", "")))
    voltage = _number(_match(r"^(\d+)$", facts.get(f"{folder}/voltage_now", "")))
    if _plugged(facts) is not False or current is None or voltage is None:
        return None
    watts = current * voltage * 1e-12
    return watts if watts >= LEAST_WATTS else None


def _memory(facts: Facts) -> int | None:
    found = _match(r"MemTotal:\s*(\d+) kB", facts.get("/proc/meminfo", ""))
    return 1024 * int(found) if found else None


def _software(facts: Facts) -> dict[str, str]:
    found = dict(
        line.split("\t", 1)
        for line in facts.get("dpkg-query -W tensorrt nvidia-jetpack libnvinfer-bin", "").split(
            "\n"
        )
        if "\t" in line
    )
    release = re.search(r"# R(\d+).*REVISION: ([\d.]+)", facts.get("/etc/nv_tegra_release", ""))
    if release:
        found["L4T"] = f"{release.group(1)}.{release.group(2)}"
    name = _match(r'(?m)^PRETTY_NAME="?([^"\n]+)', facts.get("/etc/os-release", ""))
    android = facts.get("getprop ro.build.version.release", "")
    if name or android:
        found["system"] = name or f"Android {android}"
    return found


def _texts(facts: Facts, pattern: str) -> list[str]:
    return [text for path, text in facts.items() if re.search(pattern, path)]


def _numbers(facts: Facts, pattern: str) -> list[int]:
    return [int(t) for t in _texts(facts, pattern) if re.fullmatch(r"-?\d+", t)]


def _most(values: Sequence[int], unit: float) -> float | None:
    return max(values) * unit if values else None


def _match(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
