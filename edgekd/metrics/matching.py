"""COCO's matching of detections to objects, image by image, as arrays that can be re-weighted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import DataError
from edgekd.core.types import Boxes, Dataset, Detections, Sample
from edgekd.metrics.detection import best, check_detections

THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""The ten IoU thresholds of COCO's mAP."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassMatches:
    """How the detections of one class fared in all images, best score first.

    Attributes:
        images: ``(D,)`` index of each detection's image in ``Dataset.samples``.
        hits: ``(10, D)`` whether the detection took an object at each IoU threshold.
        counted: ``(10, D)`` False where it fell into an ignore region instead.
        objects: ``(I,)`` annotated objects of the class in each image.
    """

    images: NDArray[np.int64]
    hits: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    objects: NDArray[np.int64]


def match(dataset: Dataset, detections: Mapping[int, Detections]) -> tuple[ClassMatches, ...]:
    """Returns the matches of every class, in label order.

    Args:
        dataset: Gives objects and ignore regions.
        detections: Image id → detections; an image that is absent has none.

    Raises:
        DataError: An image id is not in the split, or its detections cannot be scored.
    """
    known = {sample.image_id for sample in dataset.samples}
    for image_id, found in detections.items():
        if image_id not in known:
            raise DataError(f"image id {image_id} is not in the split")
        check_detections(found, len(dataset.classes), image_id)
    kept = {image_id: best(found) for image_id, found in detections.items()}
    return tuple(_class_matches(dataset, kept, label) for label in range(len(dataset.classes)))


def _class_matches(
    dataset: Dataset, detections: Mapping[int, Detections], label: int
) -> ClassMatches:
    images, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    hits = [np.empty((len(THRESHOLDS), 0), np.bool_)]
    counted = list(hits)
    objects = np.zeros(len(dataset.samples), np.int64)
    for index, sample in enumerate(dataset.samples):
        objects[index] = int(np.sum(sample.labels == label))
        found = detections.get(sample.image_id)
        if found is None or not np.any(found.labels == label):
            continue
        members = found.labels == label
        image_hits, image_counted = _image_matches(sample, found.boxes[members], label)
        images.append(np.full(int(members.sum()), index, np.int64))
        scores.append(found.scores[members])
        hits.append(image_hits)
        counted.append(image_counted)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return ClassMatches(
        images=np.concatenate(images)[order],
        hits=np.concatenate(hits, axis=1)[:, order],
        counted=np.concatenate(counted, axis=1)[:, order],
        objects=objects,
    )


def _image_matches(
    sample: Sample, boxes: Boxes, label: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns hits and counted ``(10, D)`` of one image's detections, given best first.

    Every detection takes the free object that it overlaps most. One that finds none is left out
    where it lies in an ignore region: that overlap is a share of the detection's own area.
    """
    objects = sample.boxes[sample.labels == label]
    hidden = (sample.ignore_labels < 0) | (sample.ignore_labels == label)
    overlaps = _overlaps(boxes, objects, own_area=False)
    covered = _overlaps(boxes, sample.ignore[hidden], own_area=True).max(axis=1, initial=0.0)
    hits = np.zeros((len(THRESHOLDS), len(boxes)), np.bool_)
    free = np.ones((len(THRESHOLDS), len(objects)), np.bool_)
    rows = np.arange(len(THRESHOLDS))
    for index in np.flatnonzero(overlaps.max(axis=1, initial=0.0) >= THRESHOLDS[0]):
        offered = np.where(free, overlaps[index], -1.0)
        # COCO hands a tie to the last object: it replaces its choice by an equal one.
        taken = len(objects) - 1 - offered[:, ::-1].argmax(axis=1)
        hits[:, index] = offered[rows, taken] >= THRESHOLDS
        free[rows, taken] &= ~hits[:, index]
    return hits, hits | (covered < THRESHOLDS[:, None])


def _overlaps(boxes: Boxes, others: Boxes, *, own_area: bool) -> NDArray[np.float64]:
    """Returns ``(N, M)`` intersection over union, or over the area of ``boxes`` themselves."""
    first, second = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=2)
    area = np.prod(first[..., 2:] - first[..., :2], axis=2)
    other = np.prod(second[..., 2:] - second[..., :2], axis=2)
    whole = np.broadcast_to(area, shared.shape) if own_area else area + other - shared
    overlaps: NDArray[np.float64] = np.zeros_like(shared)
    np.divide(shared, whole, out=overlaps, where=whole > 0)
    return overlaps
