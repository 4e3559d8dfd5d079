"""Many boards at once: each measured, none lost to another's failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekd.cli import main
from edgekd.errors import RecipeError
from edgekd.measuring import Place, read_farm


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
    assert place == Place(adb="serial", benchmark_model=tmp_path / "tools/benchmark_model")


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
