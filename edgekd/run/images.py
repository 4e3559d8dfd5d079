"""Real images as the student sees them: for calibration and for proofs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.core.types import Sample
from edgekd.data.loader import normalise
from edgekd.run.context import RunContext
from edgekd.training.inference import letterboxed


def calibration_batches(
    context: RunContext, batch_size: int = 16, most: int | None = None
) -> Iterator[Tensor]:
    """Yields training images, letterboxed and evenly spread over the split.

    Args:
        context: Gives the images and how many the recipe wants.
        batch_size: Images at once.
        most: Fewer, where not all are needed.
    """
    wanted = context.recipe.quantize.calibration_images
    chosen = spread(context.train.samples, min(wanted, most or wanted))
    for start in range(0, len(chosen), batch_size):
        pixels = _pixels(chosen[start : start + batch_size], context)
        yield normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2)).to(context.torch_device)


def proof_images(context: RunContext) -> NDArray[np.uint8]:
    """Returns ``(N, H, W, C)`` letterboxed validation images, evenly spread over the split."""
    return _pixels(spread(context.val.samples, context.recipe.export.proof_images), context)


def spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Returns at most so many samples, evenly spread over the split."""
    count = min(len(samples), most)
    return [samples[i * len(samples) // count] for i in range(count)]


def _pixels(samples: Sequence[Sample], context: RunContext) -> NDArray[np.uint8]:
    return np.stack([image for _, image, _, _ in letterboxed(samples, context.student.card)])
