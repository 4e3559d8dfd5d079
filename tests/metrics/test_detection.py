from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.core.errors import DataError
from edgekd.core.results import DetectionMetrics
from edgekd.core.types import Dataset, Detections, InputContract, Sample, Task
from edgekd.data.dataset import load
from edgekd.data.image import letterbox
from edgekd.metrics.detection import DetectionEvaluator

PUBLISHED = {
    "map": 0.503647,
    "ap50": 0.696973,
    "ap75": 0.571667,
    "ap_small": 0.593252,
    "ap_medium": 0.557991,
    "ap_large": 0.489363,
    "ar1": 0.386813,
    "ar10": 0.593680,
    "ar100": 0.595353,
}


def boxes(rows: list[list[float]]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def sample(
    image_id: int,
    rows: list[list[float]],
    labels: list[int],
    ignore: list[list[float]] | None = None,
    ignore_labels: list[int] | None = None,
) -> Sample:
    found = boxes(rows)
    return Sample(
        image_id=image_id,
        path=Path(f"{image_id}.jpg"),
        width=1000,
        height=1000,
        boxes=found,
        labels=np.array(labels, np.int64),
        areas=(found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1]),
        ignore=boxes(ignore or []),
        ignore_labels=np.array(ignore_labels or [], np.int64),
    )


def dataset(*samples: Sample, classes: tuple[str, ...] = ("a", "b")) -> Dataset:
    return Dataset(
        name="set",
        task=Task.DETECTION,
        split="val",
        format="coco",
        root=Path(),
        classes=classes,
        samples=samples,
    )


def detections(rows: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        boxes=boxes(rows),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.int64),
    )


def evaluate(data: Dataset, found: dict[int, Detections]) -> DetectionMetrics:
    evaluator = DetectionEvaluator(data)
    for image_id, item in found.items():
        evaluator.update(image_id, item)
    return evaluator.compute()


def test_a_hit_a_miss_and_a_false_alarm_by_hand() -> None:
    data = dataset(
        sample(1, [[0, 0, 100, 100], [200, 200, 300, 300]], [0, 0]), classes=("a", "never")
    )
    found = {1: detections([[0, 0, 100, 100], [500, 500, 600, 600]], [0.9, 0.8], [0, 0])}
    metrics = evaluate(data, found)
    assert metrics.map == pytest.approx(51 / 101)  # recalls 0 to 0.5 of 101
    assert metrics.per_class == {"a": pytest.approx(51 / 101), "never": -1}
    assert (metrics.ap_small, metrics.ap_large) == (-1, pytest.approx(51 / 101))
    assert metrics.ar100 == pytest.approx(0.5)
    assert metrics.images == 1


def test_no_detection_at_all_scores_zero() -> None:
    data = dataset(sample(1, [[0, 0, 100, 100]], [0]), sample(2, [], []))
    assert evaluate(data, {}).map == 0
    assert evaluate(data, {1: detections([], [], []), 2: detections([], [], [])}).map == 0


def test_the_first_annotation_counts_like_any_other() -> None:
    data = dataset(sample(1, [[0, 0, 100, 100]], [0]))
    assert evaluate(data, {1: detections([[0, 0, 100, 100]], [0.5], [0])}).map == 1


@pytest.mark.parametrize(("hidden", "expected"), [(-1, 1.0), (0, 1.0), (1, 0.5)])
def test_an_ignore_region_swallows_detections_of_the_classes_it_hides(
    hidden: int, expected: float
) -> None:
    region = sample(1, [[0, 0, 100, 100]], [0], [[500, 500, 900, 900]], [hidden])
    rows = [[600, 600, 640, 640], [700, 700, 760, 760], [0, 0, 100, 100]]
    found = {1: detections(rows, [0.9, 0.8, 0.7], [0, 0, 0])}
    metrics = evaluate(dataset(region), found)
    assert metrics.ap50 == pytest.approx(expected if expected == 1 else 1 / 3)


def test_only_the_hundred_best_of_an_image_count() -> None:
    data = dataset(sample(1, [[0, 0, 100, 100]], [0]))
    noise = [[500, 500, 510, 510]] * 100
    late = detections([[0, 0, 100, 100], *noise], [0.1, *[0.9] * 100], [0, *[1] * 100])
    early = detections([*noise, [0, 0, 100, 100]], [*[0.1] * 100, 0.9], [*[1] * 100, 0])
    assert evaluate(data, {1: late}).map == 0
    assert evaluate(data, {1: early}).map == 1


def test_reset_forgets() -> None:
    evaluator = DetectionEvaluator(dataset(sample(1, [[0, 0, 100, 100]], [0])))
    perfect = detections([[0, 0, 100, 100]], [0.9], [0])
    evaluator.update(1, perfect)
    with pytest.raises(DataError, match="evaluated already"):
        evaluator.update(1, perfect)
    evaluator.reset()
    assert evaluator.compute().map == 0
    evaluator.update(1, perfect)
    assert evaluator.compute().map == 1


@pytest.mark.parametrize(
    ("image_id", "rows", "score", "label", "message"),
    [
        (2, [[0, 0, 1, 1]], 0.5, 0, "image id 2"),
        (1, [[0, 0, 1, 1]], 0.5, 2, "label 2; legal: 0 to 1"),
        (1, [[0, 0, 1, 1]], float("nan"), 0, "not finite"),
        (1, [], 0.5, 0, r"boxes \(0, 4\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    image_id: int, rows: list[list[float]], score: float, label: int, message: str
) -> None:
    evaluator = DetectionEvaluator(dataset(sample(1, [], [])))
    with pytest.raises(DataError, match=message):
        evaluator.update(image_id, detections(rows, [score], [label]))


def random_case(seed: int) -> tuple[Dataset, dict[int, Detections]]:
    """Returns crowded images with crowds, areas unlike the boxes' and tied scores."""
    generator = np.random.default_rng(seed)
    samples, found = [], {}
    for image_id in range(1, 21):
        corners = generator.uniform(0, 500, (generator.integers(0, 12), 2))
        rows = np.hstack((corners, corners + generator.uniform(8, 160, corners.shape)))
        crowds = generator.uniform(0, 300, (generator.integers(0, 3), 2))
        regions = np.hstack((crowds, crowds + 200))
        item = sample(
            image_id,
            rows.tolist(),
            generator.integers(0, 3, len(rows)).tolist(),
            regions.tolist(),
            generator.integers(0, 3, len(regions)).tolist(),
        )
        item.areas[:] *= generator.uniform(0.3, 1.0, len(rows))
        samples.append(item)
        near = item.boxes.repeat(2, axis=0)
        near += generator.normal(0, 6, near.shape).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        far = generator.uniform(0, 500, (15, 2)).astype(np.float32)
        guesses = np.concatenate((near, np.hstack((far, far + 40))))
        found[image_id] = Detections(
            boxes=guesses,
            scores=generator.integers(1, 20, len(guesses)).astype(np.float32) / 20,
            labels=np.concatenate((item.labels.repeat(2), generator.integers(0, 3, 15))),
        )
    return dataset(*samples, classes=("a", "b", "c")), found


def oracle(data: Dataset, found: dict[int, Detections]) -> list[float]:
    """Returns pycocotools' twelve figures."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(image_id: int, label: int, row: Any, **more: object) -> dict[str, Any]:
        left, top, right, bottom = (float(value) for value in row)
        extent = [left, top, right - left, bottom - top]
        category = int(label) + 10
        return {"image_id": image_id, "category_id": category, "bbox": extent} | more

    truth: list[dict[str, Any]] = []
    guesses: list[dict[str, Any]] = []
    for item in data.samples:
        for row, label, area in zip(item.boxes, item.labels, item.areas, strict=True):
            truth.append(entry(item.image_id, label, row, area=float(area), iscrowd=0))
        for row, label in zip(item.ignore, item.ignore_labels, strict=True):
            truth.append(entry(item.image_id, label, row, area=4e4, iscrowd=1))
        if item.image_id in found:
            guess = found[item.image_id]
            for row, label, score in zip(guess.boxes, guess.labels, guess.scores, strict=True):
                guesses.append(entry(item.image_id, label, row, score=float(score)))
    reference = COCO()
    reference.dataset = {
        "images": [{"id": item.image_id} for item in data.samples],
        "categories": [{"id": label + 10} for label in range(len(data.classes))],
        "annotations": [entry | {"id": number} for number, entry in enumerate(truth, start=1)],
    }
    reference.createIndex()
    evaluation = COCOeval(reference, reference.loadRes(guesses), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def figures(metrics: DetectionMetrics) -> list[float]:
    return [getattr(metrics, name) for name in PUBLISHED]


@pytest.mark.parametrize("seed", range(4))
def test_random_cases_agree_with_pycocotools(seed: int) -> None:
    data, found = random_case(seed)
    metrics = figures(evaluate(data, found))
    assert metrics == pytest.approx(oracle(data, found)[:9], abs=1e-9)
    assert 0.05 < metrics[0] < 0.95


@pytest.mark.skipif(
    "EDGEKD_DATA" not in os.environ, reason="EDGEKD_DATA does not name the folder of real data"
)
@pytest.mark.parametrize("net", [None, (416, 416), (352, 640)])
def test_published_figures_survive_the_way_into_the_network_and_back(
    tmp_path: Path, net: tuple[int, int] | None
) -> None:
    source = Path(os.environ["EDGEKD_DATA"]) / "map_reference" / "coco_fakebbox100"
    document = json.loads((source / "sampled_gts_bbox_area.json").read_text())
    (tmp_path / "val.json").write_text(json.dumps(document))
    data = load(tmp_path, "val", format="coco", require_images=False, strict=True)
    assert sum(len(item.boxes) for item in data.samples) == 830
    by_stem = {item.path.stem: item for item in data.samples}
    items = {entry["id"]: by_stem[Path(entry["file_name"]).stem] for entry in document["images"]}
    order = sorted(entry["id"] for entry in document["categories"])
    rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    results = json.loads((source / "instances_val2014_fakebbox100_results.json").read_text())
    for entry in results:
        rows[entry["image_id"]].append(entry)
    found = {}
    for identifier, entries in rows.items():
        item = items[identifier]
        corners = np.array([entry["bbox"] for entry in entries])
        corners[:, 2:] += corners[:, :2]
        found[item.image_id] = Detections(
            boxes=(corners if net is None else there_and_back(corners, item, net)).astype("f4"),
            scores=np.array([entry["score"] for entry in entries], np.float32),
            labels=np.array([order.index(entry["category_id"]) for entry in entries]),
        )
    assert sum(len(item.scores) for item in found.values()) == 734
    assert figures(evaluate(data, found)) == pytest.approx(list(PUBLISHED.values()), abs=1e-6)


def there_and_back(
    corners: NDArray[np.float64], item: Sample, net: tuple[int, int]
) -> NDArray[np.float64]:
    """Returns boxes taken to network pixels and back by the letterbox's own numbers.

    In float64: one of the pairs overlaps by exactly 0.6, a threshold that float32 would miss.
    """
    contract = InputContract(
        height=net[0], width=net[1], channels=1, layout="NHWC", dtype="float32"
    )
    picture = np.zeros((item.height, item.width, 1), np.uint8)
    _, (scale_x, scale_y, left, top) = letterbox(picture, contract)
    scale, shift = np.array([scale_x, scale_y] * 2), np.array([left, top] * 2)
    inside = corners * scale + shift
    assert inside.min() > -1
    assert (inside < (net[1] + 1, net[0] + 1) * 2).all()
    back = (inside - shift) / scale
    assert np.abs((inside.astype(np.float32) - shift) / scale - back).max() < 1e-3
    return np.clip(back, 0, [item.width, item.height] * 2)
