from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from edgekd.core.errors import RunError
from edgekd.core.results import RunRecord
from edgekd.report.terminal import print_report


def printed(record: RunRecord, *, terminal: bool, width: int = 100, verbose: bool = True) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width, no_color=True)
    print_report(record, console, verbose=verbose)
    return stream.getvalue()


EVERY_FIGURE = (
    "44.82", "65.95", "34.17", "36.12", "57.25",  # accuracy
    "9.81 M", "1.05 M", "4.12 G", "391 M", "37.4 MiB", "1.15 MiB",
    "61.7", "69.7", "2.96", "3.34",  # measured
    "28.3", "[17.3, 48.7]", "11.9", "[7.28, 20.5]", "uncalibrated",  # predicted
    "+2.44 points [+1.31, +3.62]", "-0.66 points [-1.17, -0.19]", "+0.14 points [-0.21, +0.48]",
    "99.81 %", "93.40 %", "97.31 %",  # proofs
    "runs/traffic/export/int8-tflite.tflite",
    "onnxruntime 1.31.1", "200 runs", "2 threads",
)  # fmt: skip


@pytest.mark.parametrize("terminal", [True, False])
def test_every_figure_is_shown(record: RunRecord, terminal: bool) -> None:
    text = printed(record, terminal=terminal, width=120)
    assert [figure for figure in EVERY_FIGURE if figure not in text] == []


def test_terminal_of_100_columns_shows_every_model_uncut(record: RunRecord) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed(record, terminal=True))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for figure in ("[7.28, 20.5]", "uncalibrated", "raspberry-pi-4", "Student int8 ONNX"):
        assert figure in text


def test_measured_and_predicted_share_no_column(record: RunRecord) -> None:
    lines = printed(record, terminal=False).splitlines()
    line = next(line for line in lines if line.startswith("model Student int8 TFLite"))
    assert "measured median ms 2.96, p90 ms 3.34" in line
    assert "for raspberry-pi-4 ms 11.9 [7.28, 20.5] (predicted, uncalibrated)" in line
    unpredicted = next(line for line in lines if line.startswith("model Teacher"))
    assert "predicted" not in unpredicted


def test_prediction_in_the_measured_field_is_refused(record: RunRecord) -> None:
    row = replace(record.rows[-1], measured=record.rows[-1].predicted)
    with pytest.raises(RunError, match="'int8-tflite' holds a predicted latency"):
        printed(replace(record, rows=(row,)), terminal=True)


@pytest.mark.parametrize("terminal", [True, False])
def test_proofs_that_passed_are_one_line(record: RunRecord, terminal: bool) -> None:
    text = printed(record, terminal=terminal, width=160, verbose=False)
    passed = sum(check.passed for check in record.checks)
    assert f"roofs: {passed} of {len(record.checks)} passed" in text
    named = [check.name for check in record.checks if check.name in text]
    assert named == [check.name for check in record.checks if not check.passed]
    assert "runs/traffic/export" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_failed_proof_is_named_with_its_operator(record: RunRecord, terminal: bool) -> None:
    lines = printed(record, terminal=terminal, width=160).splitlines()
    failed = [line for line in lines if "FAIL" in line]
    assert len(failed) == 2
    assert "parity/operators/onnx" in failed[0]
    assert "/neck/level2/Resize_1" in failed[0]
    assert sum("PASS" in line for line in lines) == 4


def test_plain_output_has_no_escape_codes_and_one_fact_a_line(record: RunRecord) -> None:
    text = printed(record, terminal=False, width=40)
    assert "\x1b" not in text
    models = [line for line in text.splitlines() if line.startswith("model ")]
    assert len(models) == len(record.rows)


def test_names_cannot_drive_the_terminal_or_be_read_as_markup(record: RunRecord) -> None:
    row = replace(record.rows[0], name="[red]bad[/red]\x1b[2J\nPASS fake")
    hostile = replace(record, rows=(row,), comparisons=(), checks=())
    for terminal in (True, False):
        text = printed(hostile, terminal=terminal, width=200)
        assert "[red]bad[/red]?[2J?PASS fake" in text
        assert "\x1b[2J" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_classification_shows_top1_and_top5(
    classification_record: RunRecord, terminal: bool
) -> None:
    text = printed(classification_record, terminal=terminal)
    for shown in ("Top-1", "91.37", "Top-5", "99.63", "95.9 KiB"):
        assert shown in text
    assert "mAP" not in text
    assert "Proofs" not in text


def test_what_int8_lost_most_is_named_with_figures(record: RunRecord) -> None:
    text = printed(record, terminal=False)
    assert "after int8: car -0.70 points (40.53 to 39.83) in Student int8 ONNX" in text
    assert "after int8: AP small -0.63 points (26.30 to 25.67) in Student int8 ONNX" in text
    assert "after int8: other vehicle" not in text  # No object of it was annotated.
