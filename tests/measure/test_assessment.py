"""Images that int8 made worse are found, the worst first, and only those."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.config.device import load_device
from edgekd.config.sections import BenchmarkSection
from edgekd.core.results import RunRecord
from edgekd.core.types import Dataset, Detections, Precision, Task
from edgekd.data.dataset import load
from edgekd.measure.assessment import TRAINED, Assessment
from edgekd.report.html import render_html


def truth(dataset: Dataset) -> dict[int, Detections]:
    return {
        s.image_id: Detections(
            boxes=s.boxes, scores=np.linspace(0.9, 0.5, len(s.boxes)).astype(np.float32),
            labels=s.labels,
        )
        for s in dataset.samples
    }  # fmt: skip


def first(found: Detections, count: int) -> Detections:
    return Detections(
        boxes=found.boxes[:count], scores=found.scores[:count], labels=found.labels[:count]
    )


def assessed(dataset: Dataset, before: dict, after: dict, draws: int = 100) -> Assessment:
    options = BenchmarkSection(bootstrap=draws)
    assessment = Assessment(dataset, options, load_device("raspberry-pi"))
    for key, found in (("student-float", before), ("int8-tflite", after)):
        assessment.add_network(key, key, found, parameters=1, macs=1)
    return assessment


def test_the_image_that_lost_most_comes_first(small_set: Path) -> None:
    dataset = load(small_set, "val")
    before, after = truth(dataset), truth(dataset)
    crowded = [s for s in dataset.samples if len(s.boxes) > 3]
    none, some = crowded[0].image_id, crowded[1].image_id
    after[none] = first(after[none], 0)
    after[some] = first(after[some], len(after[some].boxes) // 2)
    found = assessed(dataset, before, after).regressions("int8-tflite", "student-float", 5)
    assert [s.image for s in found] == [crowded[0].path, crowded[1].path]
    assert found[0].lost == pytest.approx(1.0)
    assert 0 < found[1].lost < 1
    assert "100.0 points lower" in found[0].said
    assert len(found[0].visualisation.detections["student-float"].boxes) == len(crowded[0].boxes)


def test_an_image_that_got_better_is_no_setback(small_set: Path) -> None:
    dataset = load(small_set, "val")
    nothing = {image_id: first(found, 0) for image_id, found in truth(dataset).items()}
    better = assessed(dataset, nothing, truth(dataset))
    assert better.regressions("int8-tflite", "student-float", 5) == ()


def test_rows_without_accuracy_have_no_setbacks(small_set: Path) -> None:
    dataset = load(small_set, "val")
    assessment = Assessment(dataset, BenchmarkSection(), load_device("raspberry-pi"))
    assert assessment.regressions("int8-tflite", "student-float", 5) == ()


def classifier(small_set: Path) -> tuple[Dataset, dict, dict]:
    detector = load(small_set, "val")
    samples = tuple(replace(s, labels=np.array([i % 2])) for i, s in enumerate(detector.samples))
    dataset = replace(detector, task=Task.CLASSIFICATION, classes=("cat", "dog"), samples=samples)
    sure = {s.image_id: np.eye(2)[s.labels[0]] * 4.0 for s in samples}
    return dataset, sure, dict(sure)


def test_a_classifier_shows_what_it_now_takes_for_something_else(small_set: Path) -> None:
    dataset, before, after = classifier(small_set)
    slightly, wholly = dataset.samples[1], dataset.samples[2]
    after[slightly.image_id] = np.array([0.1, 0.0])
    after[wholly.image_id] = np.array([0.0, 9.0])
    after[dataset.samples[3].image_id] = np.array([0.0, 0.1])  # Less sure, and still right.
    found = assessed(dataset, before, after).regressions("int8-tflite", "student-float", 5)
    assert [s.image for s in found] == [wholly.path, slightly.path]
    assert found[0].said == "cat: cat before, dog after"
    assert found[0].visualisation is None
    assert found[0].name == wholly.path.name


def test_an_image_among_many_in_one_file_is_named_by_its_frame(small_set: Path) -> None:
    dataset, before, after = classifier(small_set)
    frames = tuple(
        replace(s, path=small_set / "t10k-images-idx3-ubyte", frame=index)
        for index, s in enumerate(dataset.samples)
    )
    after[frames[2].image_id] = np.array([0.0, 9.0])
    assessment = assessed(replace(dataset, samples=frames), before, after)
    (found,) = assessment.regressions("int8-tflite", "student-float", 5)
    assert found.name == "t10k-images-idx3-ubyte[2]"


def test_the_page_shows_them(small_set: Path) -> None:
    dataset, before, after = classifier(small_set)
    after[dataset.samples[0].image_id] = np.array([0.0, 9.0])
    assessment = assessed(dataset, before, after)
    rows = [replace(row, precision=Precision.INT8 if "int8" in row.key else row.precision)
            for row in assessment.rows]  # fmt: skip
    record = RunRecord(
        name="r", target="raspberry-pi", task=Task.CLASSIFICATION, dataset="d", rows=tuple(rows),
        comparisons=(), checks=(), curves={}, visualisations=(), provenance={},
        regressions=assessment.regressions("int8-tflite", "student-float", 5),
    )  # fmt: skip
    page = render_html(record)
    assert "Images that int8 made worse" in page
    assert "cat: cat before, dog after" in page
    assert "After int8" in page


def test_each_file_is_held_against_the_trained_graph_and_the_other(small_set: Path) -> None:
    dataset = load(small_set, "val")
    whole = truth(dataset)
    half = {k: first(v, (len(v.boxes) + 1) // 2) for k, v in whole.items()}
    assessment = assessed(dataset, whole, half)
    assessment.add_network("int8-onnx", "int8-onnx", whole, parameters=1, macs=1)
    assessment.predictions[TRAINED] = whole
    found = {check.name: check for check in assessment.agreements()}
    assert {name: check.passed for name, check in found.items()} == {
        "decisions/int8-onnx": True,
        "decisions/int8-tflite": False,
        "decisions/int8-files": False,
    }
    assert found["decisions/int8-tflite"].failing_operator == "int8-tflite"
    assert "TFLite minus the trained graph -" in found["decisions/int8-tflite"].figure
    assert found["decisions/int8-onnx"].figure.startswith("ONNX minus the trained graph +0.00")


@pytest.mark.parametrize(("lost", "passed"), [(0, True), (5, True), (15, False)])
def test_a_handful_of_images_that_tip_over_is_chance_and_many_are_not(
    small_set: Path, lost: int, passed: bool
) -> None:
    dataset, _, _ = classifier(small_set)
    one = replace(dataset.samples[0], labels=np.array([0]))
    dataset = replace(dataset, samples=tuple(replace(one, image_id=index) for index in range(100)))
    right = {index: np.array([1.0, 0.0]) for index in range(100)}
    file = right | {index: np.array([0.0, 1.0]) for index in range(lost)}
    assessment = assessed(dataset, right, file, draws=1000)
    assessment.predictions[TRAINED] = right
    found = {check.name: check for check in assessment.agreements()}
    assert found["decisions/int8-tflite"].passed == passed
    assert "99.9 % interval" in found["decisions/int8-tflite"].criterion


def test_one_file_alone_is_held_against_nothing_else(small_set: Path) -> None:
    dataset = load(small_set, "val")
    assert list(assessed(dataset, truth(dataset), truth(dataset)).agreements()) == []
