"""An image's own mAP is what the evaluator says of a set of that image alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekd.core.types import Dataset, Detections, Sample, Task
from edgekd.metrics.detection import DetectionEvaluator
from edgekd.metrics.per_image import image_precision


def random_set(seed: int, tmp_path) -> tuple[Dataset, dict[int, Detections]]:
    rng = np.random.default_rng(seed)
    samples, found = [], {}
    for image_id in range(1, 9):
        count = int(rng.integers(0, 5)) if image_id > 1 else 0
        corners = rng.uniform(0, 80, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (count, 2))], axis=1)
        labels = rng.integers(0, 3, count)
        samples.append(
            Sample(
                image_id=image_id, path=tmp_path / f"{image_id}.png",
                boxes=boxes.astype(np.float32), labels=labels,
                areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float32),
                ignore=np.zeros((0, 4), np.float32), ignore_labels=np.zeros(0, np.int64),
            )
        )  # fmt: skip
        moved = np.repeat(boxes, 2, axis=0) + rng.normal(0, 4, (2 * count, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        found[image_id] = Detections(
            boxes=moved.astype(np.float32),
            scores=rng.uniform(0, 1, 2 * count).astype(np.float32),
            labels=np.where(rng.uniform(size=2 * count) < 0.8, np.repeat(labels, 2), 0),
        )
    dataset = Dataset(
        name="random", format="coco", split="val", root=tmp_path, task=Task.DETECTION,
        classes=("a", "b", "c"), samples=tuple(samples), problems=(),
    )  # fmt: skip
    return dataset, found


@pytest.mark.parametrize("seed", range(5))
def test_each_image_as_the_evaluator_has_it_alone(seed, tmp_path) -> None:
    dataset, found = random_set(seed, tmp_path)
    values = image_precision(dataset, found)
    assert np.isnan(values[0])
    for sample, value in zip(dataset.samples, values, strict=True):
        if not len(sample.boxes):
            assert np.isnan(value)
            continue
        alone = DetectionEvaluator(replace(dataset, samples=(sample,)))
        alone.update(sample.image_id, found[sample.image_id])
        assert value == pytest.approx(alone.compute().map, abs=1e-6)
