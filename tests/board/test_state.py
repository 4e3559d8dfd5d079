"""Texts as Raspberry Pi, NVIDIA and Android print them, from documentation and public reports."""

from __future__ import annotations

import pytest

from edgekd.board.state import (
    BoardState,
    android_temperature,
    board_state,
    power_mode,
    slowed,
    tegrastats_power,
    thermal_status,
    throttling,
)

THERMAL = """IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
 Temperature{mValue=74.0, mType=0, mName=CPU7, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
 Temperature{mValue=41.5, mType=0, mName=CPU7, mStatus=0}
 Temperature{mValue=30.2, mType=3, mName=skin, mStatus=0}
 Temperature{mValue=55.0, mType=2, mName=battery, mStatus=0}
Current cooling devices from HAL:
 CoolingDevice{mValue=99, mType=0, mName=fan}
"""

TEGRASTATS = (
    "07-29-2026 18:00:27 RAM 2272/7620MB (lfb 4x4MB) SWAP 221/3810MB (cached 0MB) CPU "
    "[0%@729,0%@1036] GR3D_FREQ 0% cpu@54.937C gpu@55.468C tj@56.656C VDD_IN 4673mW/4600mW "
    "VDD_CPU_GPU_CV 527mW/527mW VDD_SOC 1339mW/1339mW"
)


@pytest.mark.parametrize(
    ("text", "now", "once"),
    [
        ("throttled=0x0", (), ()),
        ("throttled=0x50005", ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        ("throttled=0x80008", ("soft temperature limit",), ("soft temperature limit",)),
        ("throttled=0x20000", (), ("clock capped",)),
        ("", (), ()),
    ],
)
def test_every_bit_of_a_raspberry_pi_has_its_name(text, now, once) -> None:
    assert throttling(text) == (now, once)


def test_androids_status_is_told_where_it_is_not_none() -> None:
    assert thermal_status(THERMAL) == ("thermal status moderate",)
    assert thermal_status(THERMAL.replace("Status: 2", "Status: 0")) == ()


def test_live_temperatures_count_and_neither_cached_ones_nor_the_battery() -> None:
    assert android_temperature(THERMAL) == 41.5
    cached = THERMAL.partition("HAL Ready")[0]
    assert android_temperature(cached) == 74.0


def test_a_jetsons_mode_has_a_name() -> None:
    assert power_mode("NV Power Mode: 25W\n1\n") == "25W"


def test_the_boards_own_rail_is_its_power() -> None:
    assert tegrastats_power([TEGRASTATS, TEGRASTATS.replace("4673mW", "5327mW")]) == 5.0
    assert tegrastats_power(["RAM 1/2MB"]) is None


def test_a_raspberry_pis_firmware_knows_the_clock_better_than_linux() -> None:
    state = board_state(
        {
            "/proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4",
            "/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\n",
            "/proc/meminfo": "MemTotal:        3884304 kB\n",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000",
            "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1500000",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
            "/sys/class/thermal/thermal_zone0/temp": "48312",
            "vcgencmd measure_clock arm": "frequency(48)=600000000",
            "vcgencmd measure_temp": "temp=48.3'C",
            "vcgencmd get_throttled": "throttled=0x50000",
            "runtime onnxruntime": "1.20.1",
        }
    )
    assert state.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert state.clock_mhz == 600.0
    assert state.max_clock_mhz == 1500.0
    assert state.temperature_c == pytest.approx(48.312)
    assert state.throttled == ()
    assert state.throttled_since_boot == ("under-voltage", "throttled")
    assert "asimddp" not in state.flags
    assert state.memory_bytes == 3884304 * 1024
    assert state.runtimes == {"onnxruntime": "1.20.1"}


def test_a_raspberry_pi_5_measures_its_own_rails() -> None:
    rails = (
        "3V7_WL_SW_A current(0)=0.10000000A\nVDD_CORE_A current(7)=2.00000000A\n"
        "3V7_WL_SW_V volt(8)=3.70000000V\nVDD_CORE_V volt(15)=0.80000000V\nBATT_V volt(25)=0.00V"
    )
    assert board_state({"vcgencmd pmic_read_adc": rails}).power_w == pytest.approx(1.97)


def test_a_jetson_tells_mode_versions_gpu_clocks_and_power() -> None:
    hwmon = "/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    gpu = "/sys/class/devfreq/17000000.gpu"
    state = board_state(
        {
            "nvpmodel -q": "NV Power Mode: MAXN_SUPER\n2",
            "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.4, GCID: 1",
            "dpkg-query -W tensorrt nvidia-jetpack libnvinfer-bin": "tensorrt\t10.3.0.30-1",
            f"{gpu}/min_freq": "306000000",
            f"{gpu}/max_freq": "1020000000",
            f"{hwmon}/in1_label": "VDD_IN",
            f"{hwmon}/in1_input": "5000",
            f"{hwmon}/curr1_input": "1200",
        }
    )
    assert state.power_mode == "MAXN_SUPER"
    assert state.software == {"tensorrt": "10.3.0.30-1", "L4T": "36.4.4"}
    assert state.gpu_clocks_mhz == (306.0, 1020.0)
    assert state.power_w == pytest.approx(6.0)


def test_an_android_device_is_named_with_its_chip() -> None:
    state = board_state({"getprop ro.product.model": "Pixel 4", "getprop ro.soc.model": "SM8150"})
    assert state.model == "Pixel 4 (SM8150)"


def pi(text: str) -> dict[str, str]:
    return {"vcgencmd get_throttled": f"throttled={text}"}


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        (pi("0x0"), pi("0x0"), ()),
        (pi("0x50000"), pi("0x50000"), ()),
        (pi("0x0"), pi("0x40004"), ("throttled",)),
        (pi("0x0"), pi("0x40000"), ("throttled, in between",)),
        ({"nvpmodel -q": "NV Power Mode: 15W"}, {"nvpmodel -q": "NV Power Mode: 25W"},
         ("power mode went from 15W to 25W",)),
        ({}, {"dumpsys thermalservice": THERMAL}, ("thermal status moderate",)),
    ],
    ids=["cool", "long ago", "now", "meanwhile", "mode", "android"],
)  # fmt: skip
def test_what_slowed_the_board_down_meanwhile_is_named(before, after, reasons) -> None:
    assert slowed(board_state(before), board_state(after)) == reasons


def test_a_board_that_tells_nothing_has_a_state() -> None:
    state = board_state({})
    assert state.model == "unknown"
    assert state.described() == {"board": "unknown"}


BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: {}
  Wireless powered: false
  level: 60
  voltage: 4012
  temperature: 300
"""


def on_battery(current: str, usb: str = "false") -> BoardState:
    folder = "/sys/class/power_supply/battery"
    return board_state(
        {
            "dumpsys battery": BATTERY.format(usb),
            f"{folder}/current_now": current,
            f"{folder}/voltage_now": "4012000",
        }
    )


def test_an_unplugged_phone_draws_from_its_battery_whatever_the_sign() -> None:
    for current in ("-612000", "612000"):
        state = on_battery(current)
        assert state.power_w == pytest.approx(0.612 * 4.012)
        assert state.plugged is False


def test_a_battery_that_is_charged_or_speaks_of_milliamperes_tells_no_power() -> None:
    assert on_battery("612000", usb="true").power_w is None
    assert on_battery("612000", usb="true").plugged is True
    assert on_battery("-612").power_w is None
    assert on_battery("unknown").power_w is None
    assert board_state({}).plugged is None
