from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle.thresholds import DEFAULT_SCORE, best_thresholds
from edgekd.core.types import Dataset, Detections, Sample, Task

BOXES = [[20 * i, 0, 20 * i + 10, 10] for i in range(6)]


def split(labels: list[int], hidden: int = 0) -> Dataset:
    """Returns one image with an object of each label in a row, and ignore regions behind them."""
    count = len(labels)
    sample = Sample(
        image_id=1, path=Path("1.png"), width=200, height=20,
        boxes=np.array(BOXES[:count], np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64), areas=np.full(count, 100, np.float32),
        ignore=np.array(BOXES[count : count + hidden], np.float32).reshape(-1, 4),
        ignore_labels=np.full(hidden, -1, np.int64),
    )  # fmt: skip
    return Dataset(
        name="row", task=Task.DETECTION, split="val", format="coco", root=Path(),
        classes=("car", "van"), samples=(sample,),
    )  # fmt: skip


def found(places: list[int], scores: list[float], labels: list[int]) -> dict[int, Detections]:
    boxes = np.array([BOXES[place] for place in places], np.float32).reshape(-1, 4)
    return {
        1: Detections(
            boxes=boxes, scores=np.array(scores, np.float32), labels=np.array(labels, np.int64)
        )
    }


def test_the_threshold_parts_hits_from_misses_at_the_greatest_f1() -> None:
    # Three objects; hits at 0.9 and 0.8, then a miss at 0.6, a hit at 0.4, a miss at 0.2.
    # F1 after each: 2/4, 4/5, 4/6, 6/7, 6/8; the greatest is 6/7, so the cut lies below 0.4.
    car, _ = best_thresholds(
        split([0, 0, 0]), found([0, 1, 4, 2, 5], [0.9, 0.8, 0.6, 0.4, 0.2], [0] * 5)
    )
    assert (car.name, car.basis, car.objects) == ("car", "max-f1", 3)
    assert car.score == pytest.approx(0.3)
    assert car.f1 == pytest.approx(6 / 7)
    assert (car.precision, car.recall) == (3 / 4, 1.0)


def test_equal_scores_stay_together() -> None:
    # Parting the hit at 0.5 from the miss at 0.5 would give an F1 of 1; together they give 4/5.
    car, _ = best_thresholds(split([0, 0]), found([0, 1, 4], [0.9, 0.5, 0.5], [0, 0, 0]))
    assert car.score == pytest.approx(0.25)
    assert car.f1 == pytest.approx(4 / 5)


def test_half_an_overlap_is_a_hit() -> None:
    shifted = Detections(
        boxes=np.array([[3, 0, 13, 10]], np.float32),  # IoU 7 / 13 with the first object.
        scores=np.array([0.8], np.float32),
        labels=np.zeros(1, np.int64),
    )
    car, _ = best_thresholds(split([0]), {1: shifted})
    assert (car.f1, car.score) == (1.0, pytest.approx(0.4))


def test_a_detection_in_an_ignore_region_counts_for_nothing() -> None:
    car, _ = best_thresholds(split([0, 0], hidden=1), found([0, 2, 1], [0.9, 0.8, 0.7], [0] * 3))
    assert (car.precision, car.recall) == (1.0, 1.0)


def test_a_class_without_objects_or_hits_says_that_its_threshold_is_the_default() -> None:
    car, van = best_thresholds(split([0]), found([3, 4], [0.9, 0.8], [0, 1]))
    assert (car.score, car.basis, car.objects, car.f1) == (DEFAULT_SCORE, "default", 1, 0.0)
    assert (van.score, van.basis, van.objects, van.f1) == (DEFAULT_SCORE, "default", 0, None)


def test_no_other_threshold_has_a_greater_f1() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5).tolist()
    places = rng.integers(0, 6, 12).tolist()
    scores = rng.uniform(0.05, 0.95, 12).round(1).tolist()
    predictions = found(places, scores, rng.integers(0, 2, 12).tolist())
    for label, best in enumerate(best_thresholds(split(labels), predictions)):

        def f1(threshold: float, label: int = label) -> float:
            kept = [
                place
                for place, score, own in zip(
                    places, predictions[1].scores, predictions[1].labels, strict=True
                )
                if own == label and score >= threshold
            ]
            hits = len({place for place in kept if place < 5 and labels[place] == label})
            return 2 * hits / (len(kept) + labels.count(label))

        assert best.f1 == pytest.approx(f1(best.score))
        assert best.f1 == pytest.approx(max(f1(t) for t in np.arange(0, 1, 0.01)))
