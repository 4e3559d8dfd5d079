"""The score from which a detection is worth showing, chosen for each class on real predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import Dataset, Detections
from edgekd.metrics.detection import best
from edgekd.metrics.matching import ClassMatches, match

DEFAULT_SCORE = 0.3
"""Threshold of a class for which the predictions suggest none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassThreshold:
    """The score threshold of one class; a detection counts from ``score`` upwards.

    Attributes:
        name: Of the class.
        score: In [0, 1].
        basis: ``max-f1``, or ``default`` where no object of the class is annotated or none is ever
            found, so that no threshold is better than another.
        objects: Annotated objects of the class that the choice rests on.
        f1: At IoU 0.5, with this threshold, on those objects; None without any. So are precision
            and recall.
    """

    name: str
    score: float
    basis: Literal["max-f1", "default"]
    objects: int
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None


def best_thresholds(
    dataset: Dataset, predictions: Mapping[int, Detections]
) -> tuple[ClassThreshold, ...]:
    """Returns for each class, in label order, the threshold of the greatest F1 at IoU 0.5.

    It lies half way between the last score that it lets through and the next below, so that a
    runtime that differs by a rounding still makes the same choice.

    Args:
        dataset: Gives objects and ignore regions.
        predictions: Image id → detections; an image that is absent has none.

    Raises:
        DataError: An image id is not in the split, or its detections cannot be scored.
    """
    matches = match(dataset, predictions)
    kept = [best(found) for found in predictions.values()]
    return tuple(
        _class_threshold(name, matches[label], _scores(kept, label))
        for label, name in enumerate(dataset.classes)
    )


def _scores(kept: list[Detections], label: int) -> NDArray[np.float64]:
    """Returns the scores of one class in all images, falling, as `match` orders detections."""
    scores = [found.scores[found.labels == label] for found in kept]
    merged = np.concatenate([*scores, np.empty(0, np.float32)]).astype(np.float64)
    return np.sort(merged)[::-1]


def _class_threshold(
    name: str, matches: ClassMatches, scores: NDArray[np.float64]
) -> ClassThreshold:
    objects = int(matches.objects.sum())
    if objects == 0:
        return ClassThreshold(name=name, score=DEFAULT_SCORE, basis="default", objects=0)
    hits = np.cumsum(matches.hits[0] & matches.counted[0])
    shown = np.cumsum(matches.counted[0])
    below = np.append(scores[1:], 0.0)
    f1 = 2 * hits / (shown + objects)
    # No threshold parts two equal scores.
    f1[below[: len(f1)] == scores] = 0.0
    if f1.max(initial=0.0) == 0.0:
        return ClassThreshold(
            name=name,
            score=DEFAULT_SCORE,
            basis="default",
            objects=objects,
            f1=0.0,
            precision=0.0,
            recall=0.0,
        )
    index = int(f1.argmax())
    return ClassThreshold(
        name=name,
        score=float(scores[index] + below[index]) / 2,
        basis="max-f1",
        objects=objects,
        f1=float(f1[index]),
        precision=float(hits[index] / shown[index]),
        recall=float(hits[index] / objects),
    )
