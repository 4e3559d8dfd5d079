from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekd.core.host import conditions, cpu_model, cpu_vendor

Files = Callable[[dict[str, str]], Path]


def test_board_tells_its_model_and_state(system_files: Files) -> None:
    root = system_files(
        {
            "proc/cpuinfo": "processor : 0\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
            "proc/loadavg": "0.52 0.58 0.59 1/389 4242\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
            "sys/class/thermal/thermal_zone0/temp": "48200\n",
            "sys/class/thermal/thermal_zone1/temp": "51750\n",
        },
    )
    assert cpu_model(root) == "Raspberry Pi 5 Model B Rev 1.0"
    assert conditions(root) == {
        "governor": "ondemand",
        "clock_mhz": "2400",
        "temperature_c": "51.8",
        "load_1min": "0.52",
    }


def test_what_a_system_does_not_tell_is_left_out(
    system_files: Files,
) -> None:
    empty = system_files({})
    assert conditions(empty) == {}
    assert cpu_model(empty)
    root = system_files({"proc/device-tree/model": "NVIDIA Jetson Orin Nano\0"})
    assert cpu_model(root) == "NVIDIA Jetson Orin Nano"


def test_the_maker_of_a_processor_is_read_where_it_is_told(system_files):
    root = system_files({"proc/cpuinfo": "vendor_id\t: GenuineIntel\nmodel name\t: x\n"})
    assert cpu_vendor(root) == "GenuineIntel"
    assert cpu_vendor(system_files({"proc/cpuinfo": "processor : 0\nFeatures : fp asimd\n"})) == ""
