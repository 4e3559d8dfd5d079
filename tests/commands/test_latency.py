"""Many boards at once: each measured, none lost to another's failure."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekd.cli import main
from edgekd.commands import latency as measuring
from edgekd.commands.latency import Board, read_farm
from edgekd.config.device import list_devices
from edgekd.core.errors import RecipeError, RunError
from edgekd.core.types import Format
from edgekd.measure.kernels import calibration_folder


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def bench(*words: object) -> object:
    quick = ["--runs", "50", "--seconds", "0"]
    return CliRunner().invoke(main, ["bench", *map(str, words), *quick], catch_exceptions=False)


def test_every_board_is_measured_and_one_that_fails_takes_no_other_with_it(
    finished_run, board, tmp_path: Path
) -> None:
    board.install("mktemp", '#!/bin/sh\nexec /usr/bin/mktemp -d -p "$BOARD"\n')
    board.install("adb", "#!/bin/sh\necho 'error: device offline' >&2; exit 1\n")
    farm = write(
        tmp_path / "farm.yaml",
        "boards:\n  first: {host: pi@one}\n  second: {host: pi@two, threads: 2}\n"
        "  phone: {adb: emulator-5554}\n",
    )
    model = finished_run.folder / "export" / "int8.tflite"
    result = bench(model, "--hosts", farm, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert list(found) == ["first", "second", "phone"]
    assert [found[name]["threads"] for name in ("first", "second")] == [1, 2]
    assert found["first"]["timing"]["median_ms"] > 0
    assert "device offline" in found["phone"]["error"]
    assert board.leftovers == []
    text = bench(model, "--hosts", farm).stdout
    assert "phone: FAILED: emulator-5554: adb failed (1): error: device offline" in text
    assert text.count(": measured on ") == 2


def test_paths_of_a_farm_are_relative_to_its_file(tmp_path: Path) -> None:
    text = "boards: {phone: {adb: serial, benchmark_model: tools/benchmark_model}}"
    (place,) = read_farm(write(tmp_path / "farm.yaml", text)).boards.values()
    assert place == Board(adb="serial", benchmark_model=tmp_path / "tools/benchmark_model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("boards: {}", "at least one"),
        ("boards: {pi: {}}", "expected one of host and adb"),
        ("boards: {pi: {host: a, adb: b}}", "expected one of host and adb"),
        ("boards: {pi: {adb: b, trtexec: true}}", "trtexec: needs a host"),
        ("boards: {pi: {host: a, thread: 4}}", "did you mean 'threads'"),
        ("boards: {pi: {host: a, threads: 0}}", "legal: 1 and more"),
        ("pi: {host: a}", "pi"),
    ],
)
def test_a_malformed_farm_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as refused:
        read_farm(write(tmp_path / "farm.yaml", text))
    assert "farm.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "a", "--target", "jetson"], "exclude each other"),
        (["--host", "a", "--adb", "b"], "exclude each other"),
        (["--trtexec"], "--trtexec needs --host"),
        (["--host", "a", "--", "--use_gpu=true"], "options are passed on"),
    ],
)
def test_options_that_contradict_each_other_are_refused(finished_run, words, message) -> None:
    model = finished_run.folder / "export" / "int8.tflite"
    result = CliRunner().invoke(main, ["bench", str(model), *words])
    assert result.exit_code == 2
    assert message in result.output


def run(*words: object) -> object:
    return CliRunner().invoke(main, [*map(str, words)], catch_exceptions=False)


def test_a_prediction_is_explained_by_what_costs_most(finished_run) -> None:
    model = finished_run.folder / "export" / "int8.tflite"
    result = run("bench", model, "--target", "raspberry-pi-4", "--explain", "--json")
    found = json.loads(result.stdout)
    costs = [item["ms"] for item in found["operators"]]
    assert costs == sorted(costs, reverse=True)
    assert sum(costs) == pytest.approx(found["median_ms"])
    assert sum(item["share"] for item in found["operators"]) == pytest.approx(1)
    told = run("bench", model, "--target", "raspberry-pi-4", "--explain").stdout
    assert "CONV_2D" in told
    assert "known from mean of Raspberry Pi 4" in told
    assert run("bench", model, "--explain").exit_code == 2


def of_a_pi(found):
    """Returns a measurement of here as a Raspberry Pi 5 would have given it."""
    flags = ("asimd", "asimddp", "asimdhp")
    return replace(found, where="Raspberry Pi 5", before=replace(found.before, flags=flags))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Measures quickly, and as if on the board that ``change`` makes of here."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    real = measuring.measure_file

    def use(change) -> None:
        monkeypatch.setattr(
            measuring,
            "measure_file",
            lambda model, protocol, place: change(
                real(model, replace(protocol, runs=12, warmup=2, seconds=0.0), place)
            ),
        )

    return use


def test_a_measurement_calibrates_the_next_prediction(finished_run, quick) -> None:
    quick(of_a_pi)
    model = finished_run.folder / "export" / "int8.tflite"
    told = run("devices", "calibrate", "raspberry-pi", model)
    assert told.exit_code == 0, told.output
    measured = float(re.search(r"measured ([\d.]+) ms", told.stdout)[1])
    found = json.loads(run("bench", model, "--target", "raspberry-pi", "--json").stdout)
    assert found["note"] == "calibrated with 1 network"
    assert found["low_ms"] < measured < found["high_ms"]
    assert found["conditions"]["known from"].startswith("median of Raspberry Pi 5")
    assert "calibrated (1 int8); median of Raspberry Pi 5" in run("devices").stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found, "its cores compute int8 with neither SDOT nor NEON"),
        (lambda found: replace(of_a_pi(found), delegate="gpu"), "speaks of litert with xnnpack"),
        (lambda found: replace(of_a_pi(found), invalid=("throttled",)), "throttled: no latency"),
    ],
)
def test_what_says_nothing_of_the_profile_calibrates_nothing(
    finished_run, quick, change, message: str
) -> None:
    quick(change)
    model = finished_run.folder / "export" / "int8.tflite"
    result = run("devices", "calibrate", "raspberry-pi", model)
    assert result.exit_code == RunError.exit_code
    assert message in result.output
    assert not calibration_folder("raspberry-pi").exists()


def test_a_profile_without_peaks_is_not_calibrated(finished_run) -> None:
    model = finished_run.folder / "export" / "int8.tflite"
    result = run("devices", "calibrate", "host", model)
    assert result.exit_code == 2
    assert "no latency prediction for 'host'" in result.output


def test_devices_are_listed_shown_and_compared() -> None:
    listed = run("devices").stdout
    for device in list_devices():
        assert device.id in listed
    assert "not predicted: measure it" in listed
    assert [item["id"] for item in json.loads(run("devices", "--json").stdout)] == [
        device.id for device in list_devices()
    ]
    assert json.loads(run("devices", "jetson", "--json").stdout)["id"] == "jetson"
    compared = run("devices", "compare", "jetson", "raspberry-pi-4").stdout
    assert re.search(r"GPU\n  jetson +Ampere.*\n  raspberry-pi-4 +-\n", compared)
    phones = run("devices", "compare", "pixel-4", "pixel-7").stdout
    assert re.search(
        r"DSP\n  pixel-4 +Hexagon 690, through TensorFlow Lite Hexagon.*: int8", phones
    )
    assert re.search(r"NPU\n  pixel-4 +-\n  pixel-7 +TPU of Tensor G2, through nothing;", phones)
    assert run("devices", "jetsom").exit_code == 2


def test_what_a_device_refuses_has_no_latency_there(finished_run) -> None:
    model = finished_run.folder / "export" / "int8.onnx"
    result = run("bench", model, "--target", "jetson-nano")
    assert result.exit_code == 2
    assert "the Maxwell GPU has no int8 arithmetic" in result.output


def test_one_file_is_predicted_for_every_profile_that_executes_it(finished_run) -> None:
    model = finished_run.folder / "export" / "int8.tflite"
    found = json.loads(run("bench", model, "--target", "all", "--json").stdout)
    times = [item["median_ms"] for item in found]
    assert times == sorted(times)
    wanted = {d.id for d in list_devices() if Format.TFLITE in d.predictions}
    assert {item["where"] for item in found} == wanted
    assert len(wanted) > 25
    told = run("bench", model, "--target", "all").stdout
    assert re.search(r"raspberry-pi-4 +[\d.]+  \[[\d.]+, [\d.]+\] +litert, 4 threads", told)
    assert run("bench", model, "--target", "all", "--explain").exit_code == 2
