"""How well each single image was answered, to find those that got worse."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgekd.core.types import Dataset, Detections
from edgekd.metrics.bootstrap import average_precision
from edgekd.metrics.matching import THRESHOLDS, ClassMatches, match


def image_precision(dataset: Dataset, detections: Mapping[int, Detections]) -> NDArray[np.float64]:
    """Returns ``(I,)`` the mAP@[.5:.95] that every image has by itself, NaN without objects.

    The mean over the classes that have an object in the image. A detection of a class that has
    none there does not count, as it does in no single image's mAP.

    Args:
        dataset: Images in the order of the result.
        detections: Image id → detections.

    Raises:
        DataError: As `match`.
    """
    rows = [_class_precision(matches) for matches in match(dataset, detections)]
    values = np.array(rows)
    held = ~np.isnan(values)
    count = held.sum(axis=0)
    total = np.where(held, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _class_precision(matches: ClassMatches) -> NDArray[np.float64]:
    """Returns ``(I,)`` the average precision of one class in every image."""
    found: NDArray[np.float64] = np.full(len(matches.objects), np.nan)
    # Grouped by image, best first within each.
    order = np.argsort(matches.images, kind="stable")
    bounds = np.searchsorted(matches.images[order], np.arange(len(matches.objects) + 1))
    once = np.ones((1, 1), np.int32)
    for image in np.flatnonzero(matches.objects):
        members = order[bounds[image] : bounds[image + 1]]
        alone = ClassMatches(
            images=np.zeros(len(members), np.int64),
            hits=matches.hits[:, members],
            counted=matches.counted[:, members],
            objects=matches.objects[image : image + 1],
        )
        found[image] = average_precision(alone, once, range(len(THRESHOLDS)))[0]
    return found
