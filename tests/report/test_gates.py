"""Release gates on hand-made records: what passes, what fails, and what cannot be judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekd.config.sections import GatesSection
from edgekd.config.units import milliseconds, points, size_bytes
from edgekd.core.errors import GateError, RecipeError
from edgekd.core.results import (
    Basis,
    ClassificationMetrics,
    DetectionMetrics,
    Latency,
    ModelRow,
    RunRecord,
)
from edgekd.core.types import Precision, Task
from edgekd.report.gates import judge, require_gates, shipped


def metrics(person: float, car: float) -> DetectionMetrics:
    rest = dict.fromkeys(("ap50", "ap75", "ar1", "ar10", "ar100"), 0.5)
    sizes = dict.fromkeys(("ap_small", "ap_medium", "ap_large"), -1.0)
    per_class = {"person": person, "car": car, "nobody": -1.0}
    return DetectionMetrics(map=(person + car) / 2, per_class=per_class, images=9, **rest, **sizes)


def latency(basis: Basis, median_ms: float) -> Latency:
    return Latency(
        basis=basis, where="x", runtime="litert", runtime_version="2", delegate="xnnpack",
        threads=1, median_ms=median_ms, low_ms=1.0, high_ms=9.0,
        note="uncalibrated" if basis is Basis.PREDICTED else "",
    )  # fmt: skip


def row(key: str, found: DetectionMetrics | None, **fields: object) -> ModelRow:
    integer = key.startswith("int8")
    given = {
        "key": key, "name": key.replace("-", " "), "runtime": "x", "parameters": 1, "macs": 1,
        "precision": Precision.INT8 if integer else Precision.FLOAT32, "size_bytes": 1000,
        "path": f"{key}.tflite" if integer else None, "metrics": found,
    }  # fmt: skip
    return ModelRow(**(given | fields))


def record(*rows: ModelRow, target: str = "raspberry-pi") -> RunRecord:
    return RunRecord(
        name="r", target=target, task=Task.DETECTION, dataset="d", rows=rows, comparisons=(),
        checks=(), curves={}, visualisations=(), provenance={},
    )  # fmt: skip


BEFORE = row("student-float", metrics(0.40, 0.60))
AFTER = row(
    "int8-tflite",
    metrics(0.39, 0.60),
    predicted=latency(Basis.PREDICTED, 5.0),
    measured=latency(Basis.MEASURED, 0.5),
    memory_bytes=2_000_000,
)
RUN = record(row("student", metrics(0.9, 0.9)), BEFORE, AFTER)


@pytest.mark.parametrize(
    ("section", "name", "passed", "found"),
    [
        ({"max_map_drop": 0.6}, "map-drop", True, "+0.50 points against student float"),
        ({"max_map_drop": 0.4}, "map-drop", False, "+0.50 points against student float"),
        ({"max_class_drop": 1.1}, "class-drop", True, "+1.00 points in person against"),
        ({"max_class_drop": 0.9}, "class-drop", False, "+1.00 points in person against"),
        ({"max_latency_ms": 5.1}, "latency", True, "predicted [1.00, 9.00], uncalibrated"),
        ({"max_latency_ms": 4.9}, "latency", False, "5.00 ms, predicted"),
        ({"max_size_bytes": 1000}, "size", True, "1000 B"),
        ({"max_size_bytes": 999}, "size", False, "1000 B"),
        ({"max_memory_bytes": 2_000_000}, "memory", True, "1.91 MiB, measured here"),
        ({"max_memory_bytes": 1_999_999}, "memory", False, "1.91 MiB, measured here"),
    ],
)
def test_each_gate(section, name, passed, found):
    (gate,) = judge(RUN, GatesSection(**section))
    assert (gate.name, gate.model, gate.passed) == (name, "int8 tflite", passed)
    assert found in gate.found


def test_a_budget_speaks_of_the_fastest_file_and_says_what_would_have_kept_to_it():
    slower = row("int8-onnx", metrics(0.39, 0.60), predicted=latency(Basis.PREDICTED, 8.0))
    run = record(BEFORE, AFTER, slower)
    (kept,) = judge(run, GatesSection(budget_ms=5.5))
    assert (kept.name, kept.model, kept.passed) == ("budget", "int8 tflite", True)
    (missed,) = judge(run, GatesSection(budget_ms=4.0))
    assert not missed.passed
    assert "--budget 3.2ms would have bought one" in missed.found
    (unknown,) = judge(record(BEFORE, replace(AFTER, predicted=None)), GatesSection(budget_ms=9.0))
    assert not unknown.passed


def test_a_gain_passes_a_gate_of_zero():
    better = record(BEFORE, row("int8-tflite", metrics(0.41, 0.61)))
    gates = judge(better, GatesSection(max_map_drop=0.0, max_class_drop=0.0))
    assert [gate.passed for gate in gates] == [True, True]


def test_on_this_computer_latency_is_what_was_measured():
    here = record(BEFORE, AFTER, target="host")
    (gate,) = judge(here, GatesSection(max_latency_ms=1))
    assert gate.passed
    assert gate.found == "0.500 ms, measured"


def test_a_measurement_here_says_nothing_of_a_board():
    unknown = record(BEFORE, replace(AFTER, predicted=None))
    (gate,) = judge(unknown, GatesSection(max_latency_ms=1000))
    assert not gate.passed
    assert "neither measured on raspberry-pi nor predicted" in gate.found


def test_what_has_no_figure_fails():
    raw = record(BEFORE, row("int8-tflite", None))
    section = GatesSection(max_map_drop=99, max_class_drop=99, max_memory_bytes=10**12)
    gates = judge(raw, section)
    assert [gate.passed for gate in gates] == [False, False, False]
    assert all("unknown" in gate.found for gate in gates)


def test_without_a_float_twin_the_student_is_the_yardstick():
    calibrated = record(row("student", metrics(0.5, 0.6)), AFTER)
    (gate,) = judge(calibrated, GatesSection(max_map_drop=1))
    assert gate.found == "+5.50 points against student"


def test_top1_of_a_classifier():
    def top1(value):
        return ClassificationMetrics(top1=value, top5=1.0, per_class={"a": value}, images=9)

    rows = (row("student", top1(0.9)), row("int8-tflite", top1(0.895)))
    classifier = replace(record(*rows), task=Task.CLASSIFICATION)
    (gate,) = judge(classifier, GatesSection(max_map_drop=0.4))
    assert (gate.name, gate.passed) == ("top1-drop", False)


def test_only_what_ships_is_judged():
    files = [row(k, metrics(0.4, 0.6)) for k in ("int8-onnx", "int8-onnx-host", "int8-tflite")]
    assert [r.key for r in shipped(record(BEFORE, *files))] == ["int8-onnx", "int8-tflite"]
    assert [r.key for r in shipped(record(BEFORE, *files[1:]))] == ["int8-onnx-host", "int8-tflite"]


def test_the_error_lists_every_gate_that_failed():
    gates = judge(RUN, GatesSection(max_map_drop=0.1, max_size_bytes=1, max_memory_bytes=10**9))
    with pytest.raises(GateError) as failed:
        require_gates(gates)
    assert failed.value.exit_code == 4
    assert "2 of 3 gates failed" in str(failed.value)
    assert "map-drop of int8 tflite" in str(failed.value)
    assert "memory" not in str(failed.value)


def test_nothing_asked_nothing_judged():
    assert judge(RUN, GatesSection()) == ()
    require_gates(())


@pytest.mark.parametrize(
    ("text", "value"), [("15ms", 15), ("15", 15), ("0.5s", 500), ("800 us", 0.8), ("2MS", 2)]
)
def test_times(text, value):
    assert milliseconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"), [("400KiB", 409_600), ("1.5MB", 1_500_000), ("77", 77), ("1 gib", 2**30)]
)
def test_sizes(text, value):
    assert size_bytes(text) == value


@pytest.mark.parametrize("text", ["", "fast", "-3ms", "15 parsecs", "1e3", "nan"])
def test_what_is_no_quantity_is_refused_with_what_would_be(text):
    for reader in (milliseconds, size_bytes, points):
        with pytest.raises(RecipeError, match="such as"):
            reader(text)


@pytest.mark.parametrize(
    "section", [{"max_map_drop": -1}, {"max_latency_ms": 0}, {"max_size_bytes": 0}]
)
def test_impossible_gates_are_refused(section):
    with pytest.raises(ValueError, match=next(iter(section))):
        GatesSection(**section)
