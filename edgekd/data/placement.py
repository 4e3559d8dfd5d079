"""From raw outputs to detections in the original image, the same for networks and for files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from edgekd.core.types import Detections
from edgekd.standalone import decoder

Placement = tuple[float, float, float, float]
"""Scale x, scale y, left and top of an image in its letterbox."""


def placed_detections(
    outputs: Sequence[NDArray[Any]],
    specification: dict[str, Any],
    placement: Placement,
    shape: tuple[int, ...],
    min_score: float = 0.001,
) -> Detections:
    """Returns the detections in pixels of the original image, best first.

    Args:
        outputs: Raw, batch 1, in the order of ``specification["outputs"]``.
        specification: As in a contract; see `edgekd.standalone.decoder.decode`.
        placement: Where the image lies in the network's input.
        shape: Of the original image, ``(H, W, C)``.
        min_score: Candidates under it are dropped.
    """
    boxes, scores, labels = decoder.detect(outputs, specification, min_score)
    mapped = decoder.unletterbox(boxes, *placement, shape[1], shape[0])
    return Detections(boxes=mapped, scores=scores, labels=labels)
