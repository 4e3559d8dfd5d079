"""COCO mean average precision of a detector on one split, computed by faster-coco-eval."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import DataError
from edgekd.core.results import DetectionMetrics
from edgekd.core.types import Boxes, Dataset, Detections, Sample

MAX_DETECTIONS = 100
"""Detections that count in an image, over all classes, best first."""

_logger = logging.getLogger(__name__)

Entry = dict[str, Any]


class DetectionEvaluator:
    """Collects detections image by image and returns COCO metrics.

    Ignore regions count as crowds of the class that they hide, those of every class as a crowd of
    each class. An image without an update has no detections.
    """

    def __init__(self, dataset: Dataset) -> None:
        """Takes the annotations of ``dataset``; its pixels are never read."""
        self._classes = dataset.classes
        self._image_ids = frozenset(sample.image_id for sample in dataset.samples)
        self._images: list[Entry] = [
            {"id": sample.image_id, "width": sample.width, "height": sample.height}
            for sample in dataset.samples
        ]
        self._categories = [
            {"id": label, "name": name} for label, name in enumerate(dataset.classes, start=1)
        ]
        self._annotations = _annotations(dataset.samples, len(dataset.classes))
        self._detections: dict[int, Detections] = {}

    def reset(self) -> None:
        """Forgets every update."""
        self._detections.clear()

    def update(self, image_id: int, detections: Detections) -> None:
        """Takes the detections of one image; only the best `MAX_DETECTIONS` count.

        Raises:
            DataError: The image is not in the split or came before, or cannot be scored.
        """
        if image_id not in self._image_ids:
            raise DataError(f"image id {image_id} is not in the split")
        if image_id in self._detections:
            raise DataError(f"image id {image_id} was evaluated already")
        check_detections(detections, len(self._classes), image_id)
        self._detections[image_id] = best(detections)

    def compute(self) -> DetectionMetrics:
        """Returns the metrics of all updates since the last reset."""
        precision, recall = self._curves()
        return DetectionMetrics(
            map=_mean(precision[:, :, :, 0, -1]),
            ap50=_mean(precision[0, :, :, 0, -1]),
            ap75=_mean(precision[5, :, :, 0, -1]),
            ap_small=_mean(precision[:, :, :, 1, -1]),
            ap_medium=_mean(precision[:, :, :, 2, -1]),
            ap_large=_mean(precision[:, :, :, 3, -1]),
            ar1=_mean(recall[:, :, 0, 0]),
            ar10=_mean(recall[:, :, 0, 1]),
            ar100=_mean(recall[:, :, 0, 2]),
            per_class={
                name: _mean(precision[:, :, label, 0, -1])
                for label, name in enumerate(self._classes)
            },
            images=len(self._images),
        )

    def _curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns precision (IoU, recall, class, area, limit) and recall without its own axis."""
        from faster_coco_eval import COCO, COCOeval_faster

        truth = COCO(self._document(self._annotations))
        found = COCO(self._document(self._results()))
        evaluation = COCOeval_faster(truth, found, "bbox", print_function=_logger.debug)
        evaluation.evaluate()
        evaluation.accumulate()
        curves = evaluation.eval
        return np.asarray(curves["precision"]), np.asarray(curves["recall"])

    def _document(self, annotations: list[Entry]) -> Entry:
        return {
            "images": self._images,
            "categories": self._categories,
            "annotations": annotations,
        }

    def _results(self) -> list[Entry]:
        results: list[Entry] = []
        for image_id, detections in self._detections.items():
            boxes = _corner_and_size(detections.boxes)
            rows = zip(boxes, detections.scores.tolist(), detections.labels.tolist(), strict=True)
            for box, score, label in rows:
                entry = _entry(len(results) + 1, image_id, label, box, box[2] * box[3])
                results.append(entry | {"score": score})
        return results


def best(detections: Detections) -> Detections:
    """Returns the `MAX_DETECTIONS` of highest score, best first; equal scores keep their order."""
    order = np.argsort(-detections.scores, kind="stable")[:MAX_DETECTIONS]
    return Detections(
        boxes=detections.boxes[order],
        scores=detections.scores[order],
        labels=detections.labels[order],
    )


def check_detections(detections: Detections, classes: int, image_id: int) -> None:
    """Returns nothing where the detections of an image can be scored.

    Raises:
        DataError: The arrays disagree in length, a number is not finite, or a label is no class.
    """
    count = len(detections.scores)
    if detections.boxes.shape != (count, 4) or detections.labels.shape != (count,):
        raise DataError(
            f"image id {image_id}: boxes {detections.boxes.shape} and labels "
            f"{detections.labels.shape} for {count} scores; legal: ({count}, 4) and ({count},)"
        )
    if not (np.isfinite(detections.boxes).all() and np.isfinite(detections.scores).all()):
        raise DataError(f"image id {image_id}: a box or score is not finite")
    wrong = detections.labels[(detections.labels < 0) | (detections.labels >= classes)]
    if len(wrong):
        raise DataError(f"image id {image_id}: label {wrong[0]}; legal: 0 to {classes - 1}")


def _annotations(samples: Iterable[Sample], classes: int) -> list[Entry]:
    """Returns the annotated objects and regions, identified from 1: 0 would mean unmatched."""
    entries: list[Entry] = []
    for sample in samples:
        objects = zip(
            _corner_and_size(sample.boxes),
            sample.labels.tolist(),
            sample.areas.tolist(),
            strict=True,
        )
        for box, label, area in objects:
            entries.append(_entry(len(entries) + 1, sample.image_id, label, box, area))
        regions = zip(_corner_and_size(sample.ignore), sample.ignore_labels.tolist(), strict=True)
        for box, hidden in regions:
            for label in range(classes) if hidden < 0 else (hidden,):
                entry = _entry(len(entries) + 1, sample.image_id, label, box, box[2] * box[3])
                entries.append(entry | {"iscrowd": 1})
    return entries


def _entry(identifier: int, image_id: int, label: int, box: list[float], area: float) -> Entry:
    return {
        "id": identifier,
        "image_id": image_id,
        "category_id": label + 1,
        "bbox": box,
        "area": area,
        "iscrowd": 0,
    }


def _corner_and_size(boxes: Boxes) -> list[list[float]]:
    wide = boxes.astype(np.float64)
    rows: list[list[float]] = np.hstack((wide[:, :2], wide[:, 2:] - wide[:, :2])).tolist()
    return rows


def _mean(values: NDArray[np.float64]) -> float:
    """Returns the mean over the bins that hold an annotated object, -1 where none does."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
