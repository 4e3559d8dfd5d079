"""A profile to start from: what a connected board tells of itself, as `devices/*.yaml` has it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from edgekd.board.cores import WIDE, Cores, board_cores
from edgekd.board.state import board_state
from edgekd.board.transport import PYTHON, on_this_computer, over_adb, over_ssh
from edgekd.core.errors import RecipeError, RunError
from edgekd.measure.board_programs import probe_android
from edgekd.measure.on_board import probe

RULES = {"mlal": "raspberry-pi-4", "sdot": "raspberry-pi", "i8mm": "raspberry-pi"}
"""Whose rules hold for a board of such cores."""

NO_TFLITE = "jetson-nano"
"""Rules under which no CPU runtime is shipped to, so that none is predicted."""

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def probed_profile(
    name: str, *, host: str | None = None, adb: str | None = None, python: str = PYTHON
) -> str:
    """Returns a profile of a connected board, as YAML.

    Args:
        name: Its id: small letters, digits and hyphens.
        host: Over ssh; None for here.
        adb: Serial of an Android device, empty for the only one; None for none.
        python: Of the host.

    Raises:
        RecipeError: The name cannot be an id.
        RunError: The board is out of reach, or has no cores of Arm's kind.
    """
    if not NAME.fullmatch(name):
        raise RecipeError(f"{name!r}: legal are small letters, digits and hyphens: my-board-2")
    copied = None
    if adb is not None:
        with over_adb(adb or None) as work:
            facts = probe_android(work)
    else:
        with over_ssh(host, python) if host else on_this_computer() as work:
            facts, copied = probe(work)
    return profile_of(name, facts, copied, android=adb is not None)


def profile_of(
    name: str, facts: Mapping[str, str], copied_gb_s: float | None, *, android: bool
) -> str:
    """Returns a profile of the texts that a board tells of itself.

    Raises:
        RunError: It has no cores of Arm's kind.
    """
    state, cores = board_state(facts), board_cores(facts)
    if not cores:
        raise RunError(
            f"{state.model}: no Arm cores in /proc/cpuinfo; a profile is of a board, and this "
            "computer is the target `host`"
        )
    like = _rules(facts, cores, android)
    document = {
        "schema": 1,
        "id": name,
        "like": like,
        "name": state.model,
        "description": f"{', '.join(map(_described, cores))}; {state.system}".rstrip("; "),
        "cpu": [_cluster(f"cores-{index}", one) for index, one in enumerate(cores)],
    }
    if copied_gb_s is not None:
        document["memory"] = {
            "theoretical_gb_s": None,
            "copied_gb_s": round(copied_gb_s, 2),
            "source": "[PB] 64 MiB copied by one core",
        }
    document["power_mode"] = {
        "name": state.power_mode or "default",
        "note": f"governor {', '.join(state.governors) or 'not told'}",
        "source": "[PB]",
    }
    document["threads"] = min(4, cores[0].count)
    if copied_gb_s is not None and like != NO_TFLITE:
        document["predictions"] = _predictions(cores[0])
    document["sources"] = {"PB": f"probed: {state.system or state.model}"}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    if copied_gb_s is None:
        text += (
            "# Nothing is predicted without memory: add memory.theoretical_gb_s with its source, "
            "and predictions.\n"
        )
    return text


def _rules(facts: Mapping[str, str], cores: tuple[Cores, ...], android: bool) -> str:
    if android:
        return "android"
    if "/etc/nv_tegra_release" in facts or "Jetson" in board_state(facts).model:
        # Maxwell's GPU has no int8; its CPU is a Cortex-A57.
        return NO_TFLITE if cores[0].uarch == "Cortex-A57" else "jetson"
    return RULES[cores[0].int8]


def _described(cores: Cores) -> str:
    clock = f" at {cores.clock_ghz:g} GHz" if cores.clock_ghz else ""
    return f"{cores.count} {cores.uarch or f'cores of part {cores.part}'}{clock}"


def _cluster(name: str, cores: Cores) -> dict[str, object]:
    known = "" if cores.uarch else f"; part {cores.part} is not known, its rates are guessed"
    clock = "[PB] clock" if cores.clock_ghz else "clock not told: put the real one here"
    found: dict[str, object] = {
        "name": name,
        "cores": cores.count,
        "uarch": cores.uarch or "unknown",
        "clock_ghz": cores.clock_ghz or 1.0,
        "int8_kernel": cores.int8,
        "fp32_ops_per_cycle": cores.rates[0],
        "fp16_ops_per_cycle": cores.rates[1],
        "int8_ops_per_cycle": cores.rates[2],
    }
    if cores.uarch in WIDE:
        found["reached"] = 0.45
    found["source"] = f"{clock}; rates of the microarchitecture{known}"
    return found


def _predictions(fastest: Cores) -> dict[str, object]:
    tflite: dict[str, object] = {"kernels": "xnnpack"}
    if fastest.int8 == "sdot":
        tflite["relatives"] = [{"latencies": "jetson-agx-orin-xnnpack", "transfer": 0.25}]
    tflite["basis"] = "uncalibrated: run `edgekd devices calibrate` with this file"
    return {"tflite": tflite}
