from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.core.errors import DataError
from edgekd.core.results import DetectionMetrics
from edgekd.core.types import Dataset, Detections, Sample, Task
from edgekd.metrics.bootstrap import average_precision, paired_bootstrap, paired_top1_bootstrap
from edgekd.metrics.detection import DetectionEvaluator
from edgekd.metrics.matching import match

CLASSES = ("a", "b", "c")


def case(seed: int, images: int = 30, noise: float = 4.0) -> tuple[Dataset, dict[int, Detections]]:
    """Returns images with objects, ignore regions and tied scores, and noisy detections."""
    generator = np.random.default_rng(seed)
    samples, found = [], {}
    for image_id in range(1, images + 1):
        corners = generator.uniform(0, 500, (generator.integers(0, 9), 2))
        boxes = np.hstack((corners, corners + generator.uniform(8, 90, corners.shape)))
        boxes = boxes.astype(np.float32)
        labels = generator.integers(0, 2, len(boxes))  # class c never occurs
        regions = generator.uniform(0, 300, (generator.integers(0, 2), 2))
        samples.append(
            Sample(
                image_id=image_id,
                path=Path(f"{image_id}.jpg"),
                width=640,
                height=640,
                boxes=boxes,
                labels=labels,
                areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
                ignore=np.hstack((regions, regions + 150)).astype(np.float32),
                ignore_labels=np.full(len(regions), image_id % 3 - 1, np.int64),
            )
        )
        near = boxes.repeat(2, axis=0) + generator.normal(0, noise, (2 * len(boxes), 4))
        far = generator.uniform(0, 500, (10, 2))
        guesses = np.concatenate((near, np.hstack((far, far + 30)))).astype(np.float32)
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        found[image_id] = Detections(
            boxes=guesses,
            scores=generator.integers(1, 30, len(guesses)).astype(np.float32) / 30,
            labels=np.concatenate((labels.repeat(2), generator.integers(0, 3, 10))),
        )
    data = Dataset(
        name="set",
        task=Task.DETECTION,
        split="val",
        format="coco",
        root=Path(),
        classes=CLASSES,
        samples=tuple(samples),
    )
    return data, found


def evaluate(data: Dataset, found: dict[int, Detections]) -> DetectionMetrics:
    evaluator = DetectionEvaluator(data)
    for image_id, item in found.items():
        evaluator.update(image_id, item)
    return evaluator.compute()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("metric", ["map", "ap50", "ap75"])
def test_the_value_is_the_evaluators_difference(seed: int, metric: str) -> None:
    data, worse = case(seed)
    better = case(seed, noise=1.0)[1]
    interval = paired_bootstrap(data, worse, better, metric=metric, samples=20)
    expected = getattr(evaluate(data, better), metric) - getattr(evaluate(data, worse), metric)
    assert interval.value == pytest.approx(expected, abs=1e-9)
    assert expected > 0


def test_the_absolute_value_is_the_evaluators_map() -> None:
    data, found = case(1)
    assert paired_bootstrap(data, {}, found, samples=2).value == pytest.approx(
        evaluate(data, found).map, abs=1e-9
    )


def test_a_weight_counts_like_a_copy_of_the_image() -> None:
    data, found = case(2)
    generator = np.random.default_rng(0)
    # Without ties: their order is arbitrary, and a copy may come before its image's other boxes.
    found = {
        image_id: replace(item, scores=generator.random(len(item.scores), np.float32))
        for image_id, item in found.items()
    }
    weights = generator.multinomial(30, np.full(30, 1 / 30)).astype(np.int32)
    samples, copies = [], {}
    for sample, weight in zip(data.samples, weights, strict=True):
        for _ in range(weight):
            copies[len(samples) + 1] = found[sample.image_id]
            samples.append(replace(sample, image_id=len(samples) + 1))
    metrics = evaluate(replace(data, samples=tuple(samples)), copies)
    for matches, name in zip(match(data, found), CLASSES, strict=True):
        drawn = average_precision(matches, weights[None], range(10))[0]
        expected = metrics.per_class[name]
        assert drawn == pytest.approx(np.nan if expected == -1 else expected, nan_ok=True)


def test_the_interval_holds_the_value_and_narrows_with_images() -> None:
    widths = []
    for images in (30, 300):
        data, worse = case(5, images)
        interval = paired_bootstrap(data, worse, case(5, images, noise=1.0)[1], samples=200)
        assert interval.low < interval.value < interval.high
        assert interval.confidence == 0.95
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 2


def test_equal_models_differ_by_nothing_and_swapped_ones_by_the_opposite() -> None:
    data, worse = case(6)
    better = case(6, noise=1.0)[1]
    same = paired_bootstrap(data, worse, worse, samples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    one, other = (
        paired_bootstrap(data, *pair, samples=50) for pair in ((worse, better), (better, worse))
    )
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_a_seed_repeats_the_interval() -> None:
    data, found = case(7)
    first, again, other = (
        paired_bootstrap(data, {}, found, samples=50, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_classes_can_be_chosen() -> None:
    data, found = case(8)
    metrics = evaluate(data, found)
    for name in ("a", "b"):
        interval = paired_bootstrap(data, {}, found, classes=[name], samples=5)
        assert interval.value == pytest.approx(metrics.per_class[name], abs=1e-9)
    with pytest.raises(DataError, match="no object of c"):
        paired_bootstrap(data, {}, found, classes=["c"])


def test_what_is_unknown_is_refused() -> None:
    data, found = case(9, images=3)
    with pytest.raises(DataError, match=r"metric 'ap90'.*legal: ap50, ap75, map"):
        paired_bootstrap(data, found, found, metric="ap90")
    with pytest.raises(DataError, match="class 'd'"):
        paired_bootstrap(data, found, found, classes=["d"])
    with pytest.raises(DataError, match="image id 9"):
        paired_bootstrap(data, found, found | {9: found[1]})
    with pytest.raises(DataError, match="samples is 0"):
        paired_bootstrap(data, found, found, samples=0)


def test_three_hundred_images_take_seconds() -> None:
    data, worse = case(10, images=300)
    better = case(10, images=300, noise=1.0)[1]
    started = time.process_time()
    paired_bootstrap(data, worse, better, samples=1000)
    assert time.process_time() - started < 10


def test_top1_differs_by_the_share_of_images_won() -> None:
    labels = np.zeros(1000, np.int64)
    right, wrong = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    first = np.where((np.arange(1000) < 700)[:, None], right, wrong)
    second = np.where((np.arange(1000) >= 200)[:, None], right, wrong)
    # 300 won and 200 lost of 1000: the spread of their difference is known.
    spread = np.sqrt((0.5 - 0.1**2) / 1000)
    for confidence, width, error in ((0.95, 1.96, 0.004), (0.999, 3.29, 0.02)):
        interval = paired_top1_bootstrap(first, second, labels, samples=4000, confidence=confidence)
        assert interval.confidence == confidence
        assert interval.value == pytest.approx(0.1)
        assert interval.low == pytest.approx(0.1 - width * spread, abs=error)
        assert interval.high == pytest.approx(0.1 + width * spread, abs=error)
