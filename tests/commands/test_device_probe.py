"""A profile of what a board tells of itself: its cores, clocks and rules; loadable as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekd.board.cores import board_cores, instructions
from edgekd.board.transport import over_ssh
from edgekd.cli import main
from edgekd.commands import device_probe as probing
from edgekd.commands.device_probe import probed_profile, profile_of
from edgekd.config.device import load_device
from edgekd.core.errors import RecipeError, RunError
from edgekd.core.types import Format
from edgekd.measure.on_board import probe

PLAIN = "fp asimd evtstrm crc32 cpuid"
DOT = f"{PLAIN} asimdhp asimddp"


def board(*cores: tuple[int, str, int | None, str], **more: str) -> dict[str, str]:
    """Returns the texts of a board: part, implementer, clock in MHz and features of every core."""
    blocks, facts = [], {"system": "Linux 6.6 aarch64"}
    for index, (part, implementer, mhz, features) in enumerate(cores):
        blocks.append(
            f"processor\t: {index}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\n"
            f"CPU implementer\t: {implementer}\nCPU architecture: 8\nCPU part\t: {part:#x}"
        )
        if mhz:
            path = f"/sys/devices/system/cpu/cpu{index}/cpufreq/cpuinfo_max_freq"
            facts[path] = str(mhz * 1000)
    facts["/proc/cpuinfo"] = "\n\n".join(blocks) + "\n\nHardware\t: Board\nModel\t\t: Board 5\n"
    return facts | {name.replace("__", "/"): text for name, text in more.items()}


PI5 = board(*[(0xD0B, "0x41", 2400, DOT)] * 4)
PI5["/proc/device-tree/model"] = "Raspberry Pi 5 Model B"
ROCK = board(*[(0xD05, "0x41", 1800, DOT)] * 4, *[(0xD0B, "0x41", 2400, DOT)] * 4)
PIXEL = board(
    *[(0xD46, "0x41", 1700, f"{DOT} i8mm")] * 4, *[(0xD4D, "0x41", 2370, f"{DOT} i8mm")] * 4,
    (0xD4E, "0x41", 2910, f"{DOT} i8mm"),
)  # fmt: skip


def load(folder: Path, text: str):
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_device(path)


def test_cores_are_counted_by_kind_and_clock_fastest_first() -> None:
    found = board_cores(ROCK)
    assert [(c.count, c.uarch, c.clock_ghz, c.int8) for c in found] == [
        (4, "Cortex-A76", 2.4, "sdot"),
        (4, "Cortex-A55", 1.8, "sdot"),
    ]
    assert [c.uarch for c in board_cores(PIXEL)] == ["Cortex-X3", "Cortex-A715", "Cortex-A510"]


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        (("asimd",), "mlal"),
        (("neon", "vfpv4"), "mlal"),
        (("asimd", "asimddp"), "sdot"),
        (("asimd", "asimddp", "i8mm"), "i8mm"),
        (("avx2", "sse4_2"), None),
    ],
)
def test_instructions_are_read_from_the_extensions(features, kind) -> None:
    assert instructions(features) == kind


def test_a_board_becomes_a_profile_that_loads_and_predicts(tmp_path: Path) -> None:
    device = load(tmp_path, profile_of("mine", PI5, 5.651, android=False))
    assert (device.name, device.like) == ("Raspberry Pi 5 Model B", "raspberry-pi")
    (cluster,) = device.cpu
    assert (cluster.cores, cluster.uarch, cluster.clock_ghz) == (4, "Cortex-A76", 2.4)
    assert (cluster.int8_kernel, cluster.int8_ops_per_cycle) == ("sdot", 64)
    assert device.memory.copied_gb_s == 5.65
    assert set(device.predictions) == {Format.TFLITE}
    assert device.quantization == load_device("raspberry-pi").quantization


@pytest.mark.parametrize(
    ("facts", "android", "like"),
    [
        (board(*[(0xD08, "0x41", 1800, PLAIN)] * 4), False, "raspberry-pi-4"),
        (ROCK, False, "raspberry-pi"),
        (PIXEL, True, "android"),
        (board((0xD42, "0x41", 1510, DOT), __etc__nv_tegra_release="# R36"), False, "jetson"),
        (board((0xD07, "0x41", 1430, PLAIN), __etc__nv_tegra_release="# R32"), False,
         "jetson-nano"),
    ],
)  # fmt: skip
def test_a_board_takes_the_rules_of_its_kind(tmp_path: Path, facts, android, like) -> None:
    device = load(tmp_path, profile_of("mine", facts, 4.0, android=android))
    assert device.like == like


def test_without_a_measured_copy_nothing_is_predicted(tmp_path: Path) -> None:
    text = profile_of("mine", PIXEL, None, android=True)
    device = load(tmp_path, text)
    assert (device.memory, device.predictions) == (None, {})
    assert "add memory.theoretical_gb_s" in text
    assert device.cpu[0].reached == 0.45


def test_a_core_that_nobody_knows_is_said_to_be_guessed(tmp_path: Path) -> None:
    device = load(
        tmp_path, profile_of("mine", board((0xFFF, "0x99", None, DOT)), 4.0, android=False)
    )
    assert device.cpu[0].uarch == "unknown"
    assert "part 0x99 0xfff is not known, its rates are guessed" in device.cpu[0].source
    assert "put the real one here" in device.cpu[0].source


def test_a_desktop_is_no_board() -> None:
    facts = {"/proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\nflags\t: avx2\n"}
    with pytest.raises(RunError, match="Some CPU: no Arm cores"):
        profile_of("mine", facts, 9.0, android=False)


@pytest.mark.parametrize("name", ["My Board", "../board", "board-", ""])
def test_a_name_that_cannot_be_an_id_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="small letters, digits and hyphens"):
        probed_profile(name)


def test_a_board_is_probed_over_ssh_and_nothing_stays(board) -> None:
    with over_ssh("pi@board") as work:
        facts, copied = probe(work)
    assert facts["python"]
    assert 0.1 < copied < 1000
    assert board.leftovers == []


def test_the_command_writes_the_file_and_keeps_one_that_is_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(probing, "probe", lambda work: (PI5, 5.6))
    path = tmp_path / "mine.yaml"
    command = ["devices", "new", "mine", "--out", str(path)]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert load_device(path).id == "mine"
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 2
    assert "exists already; --force replaces it" in again.output
    shown = CliRunner().invoke(main, ["devices", "show", str(path), "--json"])
    assert json.loads(shown.stdout)["like"] == "raspberry-pi"
