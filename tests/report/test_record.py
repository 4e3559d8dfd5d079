from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.core.errors import RunError
from edgekd.core.results import Check, ClassificationMetrics, ModelRow, RunRecord
from edgekd.core.types import Detections
from edgekd.report.record import from_json, to_json


def assert_same(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    if is_dataclass(expected):
        for field in fields(expected):
            assert_same(getattr(actual, field.name), getattr(expected, field.name))
    elif isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        np.testing.assert_array_equal(actual, expected)
    elif isinstance(expected, tuple | list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    else:
        assert actual == expected


def test_detection_record_comes_back_the_same(record: RunRecord) -> None:
    assert_same(from_json(to_json(record)), record)


def test_classification_metrics_come_back_as_such(classification_record: RunRecord) -> None:
    back = from_json(to_json(classification_record))
    assert isinstance(back.rows[0].metrics, ClassificationMetrics)
    assert_same(back, classification_record)


def test_every_float32_survives(record: RunRecord) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    found = Detections(
        boxes=values[: len(values) // 4 * 4].reshape(-1, 4),
        scores=values,
        labels=np.zeros(len(values), np.int64),
    )
    visualisation = replace(record.visualisations[0], truth=found)
    back = from_json(to_json(replace(record, visualisations=(visualisation,))))
    np.testing.assert_array_equal(
        back.visualisations[0].truth.scores.view(np.uint32), values.view(np.uint32)
    )


def test_same_record_gives_the_same_text_with_keys_in_field_order(record: RunRecord) -> None:
    text = to_json(record)
    assert text == to_json(from_json(text))
    row = json.loads(text)["record"]["rows"][0]
    assert list(row) == [field.name for field in fields(ModelRow)]


def test_numpy_numbers_are_written_as_numbers(record: RunRecord) -> None:
    row = replace(record.rows[0], parameters=np.int64(7), size_bytes=np.int32(9))
    back = from_json(to_json(replace(record, rows=(row,))))
    assert (back.rows[0].parameters, back.rows[0].size_bytes) == (7, 9)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_number_that_is_not_finite_is_refused_with_its_place(
    record: RunRecord, value: float
) -> None:
    curves = {"distill": [{"step": 0.0, "loss": 1.0}, {"step": 1.0, "loss": value}]}
    with pytest.raises(RunError, match=r"record\.curves\.distill\[1\]\.loss"):
        to_json(replace(record, curves=curves))


def test_array_with_nan_is_refused_with_its_place(record: RunRecord) -> None:
    truth = record.visualisations[0].truth
    boxes = truth.boxes.copy()
    boxes[2, 1] = np.nan
    visualisation = replace(record.visualisations[0], truth=replace(truth, boxes=boxes))
    with pytest.raises(RunError, match=r"record\.visualisations\[0\]\.truth\.boxes"):
        to_json(replace(record, visualisations=(visualisation,)))


@pytest.mark.parametrize("details", [{"path": object()}, {"shares": {1: 0.5}}])
def test_details_that_json_would_change_are_refused(
    record: RunRecord, details: dict[str, Any]
) -> None:
    check = Check(name="parity", passed=True, figure="1", criterion="1", details=details)
    with pytest.raises(RunError, match=r"checks\[0\]\.details"):
        to_json(replace(record, checks=(check,)))


def _set(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for name in parents:
        document = document[int(name) if isinstance(document, list) else name]
    document[last] = value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: _set(file, "schema", 99), r"schema version 99.*legal: 1, 2"),
        (lambda file: file.pop("schema"), r"no schema version"),
        (lambda file: file.pop("record"), r"expected a mapping"),
        (lambda file: file["record"].pop("task"), r"missing key 'task'"),
        (lambda file: _set(file, "record/colour", 1), r"unknown key 'colour'"),
        (lambda file: _set(file, "record/task", "depth"), r"'depth'.*classification, detection"),
        (lambda file: _set(file, "record/rows/0/macs", "7"), r"rows\[0\]\.macs: .* got '7'"),
        (lambda file: _set(file, "record/rows/0/macs", True), r"rows\[0\]\.macs: .* got True"),
        (lambda file: _set(file, "record/rows/0/metrics/kind", "depth"), r"metrics\.kind"),
        (
            lambda file: _set(file, "record/visualisations/0/truth/boxes/shape", [5, 5]),
            r"truth\.boxes: not an array",
        ),
    ],
)
def test_damaged_record_is_refused_with_the_place(
    record: RunRecord, damage: Callable[[dict[str, Any]], Any], message: str
) -> None:
    document = json.loads(to_json(record))
    damage(document)
    with pytest.raises(RunError, match=message):
        from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1, "record": {"name": NaN}}'])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(RunError, match="run record"):
        from_json(text)


def test_record_can_be_kept_in_a_file(record: RunRecord, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    named = replace(record, name="Straßenverkehr 交通")
    path.write_text(to_json(named), encoding="utf-8")
    assert_same(from_json(path.read_text(encoding="utf-8")), named)


def test_a_record_of_schema_1_is_read(record: RunRecord) -> None:
    former = {
        "visualisations": "exhibits", "regressions": "setbacks", "visualisation": "exhibit",
        "failing_operator": "culprit", "criterion": "mark",
    }  # fmt: skip
    text = to_json(record).replace('"schema": 2', '"schema": 1')
    for name, older in former.items():
        text = text.replace(f'"{name}":', f'"{older}":')
    assert '"mark"' in text
    assert to_json(from_json(text)) == to_json(record)
