"""Paired bootstrap over images: whether one model is better than another, or only luckier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.core.errors import DataError, suggest
from edgekd.core.results import Interval
from edgekd.core.types import Dataset, Detections
from edgekd.metrics.classification import true_ranks
from edgekd.metrics.matching import THRESHOLDS, ClassMatches, match

METRICS: dict[str, tuple[int, ...]] = {
    "map": tuple(range(len(THRESHOLDS))),
    "ap50": (0,),
    "ap75": (5,),
}
"""Metric name → the IoU thresholds that it averages, as indices of `THRESHOLDS`."""

CONFIDENCE = 0.95
"""Of an interval that a report shows."""

_RECALLS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
_CELLS = 1 << 19
"""Draws x detections worked on at once: small enough to stay in a processor's cache."""

Weights = NDArray[np.int32]


def paired_bootstrap(
    dataset: Dataset,
    detections_a: Mapping[int, Detections],
    detections_b: Mapping[int, Detections],
    *,
    metric: str = "map",
    samples: int = 1000,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Returns the metric of b minus that of a, with its interval over resampled images.

    Both models see the same draws. Detections are matched once; a draw only re-weights images. A
    class that a draw leaves without an object does not count in that draw's mean, and a draw that
    leaves none of the classes is left out.

    Args:
        dataset: The images and objects that both were run on.
        detections_a: Image id → detections of the model subtracted.
        detections_b: Image id → detections of the other.
        metric: One of `METRICS`.
        samples: Draws of as many images as there are, with replacement.
        seed: Of the draws.
        classes: Names of the classes to average; by default all.
        confidence: Share of the draws that the interval holds, 0 to 1.

    Raises:
        DataError: A metric, class, image id or label is unknown, or there is no object at all.
    """
    if metric not in METRICS:
        raise DataError(f"metric {metric!r}{suggest(metric, METRICS)}")
    labels = [_label(name, dataset.classes) for name in classes or dataset.classes]
    matched = (match(dataset, detections_a), match(dataset, detections_b))
    pair = [[matches[label] for label in labels] for matches in matched]
    value = _difference(pair, np.ones((1, len(dataset.samples)), np.int32), METRICS[metric])
    if np.isnan(value[0]):
        raise DataError(f"{dataset.name}: no object of {', '.join(classes or dataset.classes)}")
    draws = _draws(len(dataset.samples), samples, seed)
    return _interval(float(value[0]), _difference(pair, draws, METRICS[metric]), confidence)


def paired_top1_bootstrap(
    logits_a: NDArray[np.floating],
    logits_b: NDArray[np.floating],
    labels: NDArray[np.int64],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Returns the top-1 accuracy of b minus that of a, with its interval over images.

    Args:
        logits_a: ``(N, C)`` of the model subtracted.
        logits_b: ``(N, C)`` of the other, for the same images.
        labels: ``(N,)`` true classes.
        samples: Draws of N images, with replacement.
        seed: Of the draws.
        confidence: Share of the draws that the interval holds, 0 to 1.

    Raises:
        DataError: The shapes or a label do not fit, or there is no image.
    """
    if not len(labels):
        raise DataError("no image was evaluated")
    right_a, right_b = (
        true_ranks(logits, labels, logits.shape[1]) == 0 for logits in (logits_a, logits_b)
    )
    gains = right_b.astype(np.int64) - right_a
    # Of N drawn images the numbers gained, lost and unchanged are all that the difference needs.
    shares = np.array([np.mean(gains == gain) for gain in (1, 0, -1)])
    counts = _generator(samples, seed).multinomial(len(gains), shares, size=samples)
    differences = (counts[:, 0] - counts[:, 2]) / len(gains)
    return _interval(float(gains.mean()), differences, confidence)


def average_precision(
    matches: ClassMatches, weights: Weights, thresholds: Sequence[int]
) -> NDArray[np.float64]:
    """Returns ``(S,)`` the class's average precision in each draw, NaN where it has no object.

    Args:
        matches: Of one class.
        weights: ``(S, I)`` how often each draw holds each image.
        thresholds: Indices of `THRESHOLDS` to average over.
    """
    objects = weights @ matches.objects
    rows = max(1, _CELLS // max(1, len(matches.images)))
    parts = []
    for start in range(0, len(weights), rows):
        drawn = weights[start : start + rows, matches.images]
        held = objects[start : start + rows]
        curves = [
            _precision_at(drawn, held, matches.hits[threshold], matches.counted[threshold])
            for threshold in thresholds
        ]
        parts.append(np.mean(curves, axis=0))
    return np.where(objects > 0, np.concatenate(parts), np.nan)


def _precision_at(
    drawn: Weights,
    objects: NDArray[np.int64],
    hits: NDArray[np.bool_],
    counted: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Returns ``(S,)`` the precision averaged over 101 recalls.

    Recall and the envelope of precision change only where a detection hits, so nothing else is
    kept: each hit stands for the recall levels between the hit before and itself.
    """
    positions = np.flatnonzero(hits)
    if not len(positions):
        return np.zeros(len(drawn))
    found = np.cumsum(drawn[:, positions], axis=1, dtype=np.int32)
    shown = np.cumsum(drawn * counted, axis=1, dtype=np.int32)[:, positions]
    precision = found / np.maximum(shown, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = found / np.maximum(objects, 1)[:, None]
    levels = np.searchsorted(_RECALLS, recall, side="right") * (found > 0)
    steps = np.diff(levels, axis=1, prepend=0)
    return np.asarray((envelope * steps).sum(axis=1) / len(_RECALLS))


def _difference(
    pair: Sequence[Sequence[ClassMatches]], weights: Weights, thresholds: Sequence[int]
) -> NDArray[np.float64]:
    """Returns ``(S,)`` b minus a, each the mean over the classes that a draw holds."""
    first, second = (
        np.array([average_precision(matches, weights, thresholds) for matches in model])
        for model in pair
    )
    held = ~np.isnan(first)
    count = held.sum(axis=0)
    total = np.where(held, second - first, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = np.full(len(weights), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _label(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise DataError(f"class {name!r}{suggest(name, classes)}")
    return classes.index(name)


def _draws(images: int, samples: int, seed: int) -> Weights:
    """Returns ``(samples, images)`` how often each draw holds each image."""
    share = np.full(images, 1.0 / images)
    draws = _generator(samples, seed).multinomial(images, share, size=samples)
    return draws.astype(np.int32)


def _generator(samples: int, seed: int) -> np.random.Generator:
    if samples < 1:
        raise DataError(f"samples is {samples}; legal: at least 1")
    return np.random.default_rng(seed)


def _interval(value: float, differences: NDArray[np.float64], confidence: float) -> Interval:
    tail = 50 * (1 - confidence)
    low, high = np.nanpercentile(differences, [tail, 100 - tail])
    return Interval(value=value, low=float(low), high=float(high), confidence=confidence)
