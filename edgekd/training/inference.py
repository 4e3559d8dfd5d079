"""A network in torch over a data set, through the decoder that decodes exported files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.data.image import letterbox, read_image
from edgekd.data.loader import normalise
from edgekd.data.placement import Placement, placed_detections
from edgekd.nets.card import Card
from edgekd.progress import Progress
from edgekd.types import Dataset, Detections, Image, InputContract, Sample, Task

Forward = Callable[[Tensor], Sequence[Tensor]]
"""Images in EdgeKD's normalisation to raw outputs."""


def input_contract(card: Card) -> InputContract:
    """Returns how an image becomes the network's input in torch."""
    return InputContract(
        height=card.height, width=card.width, channels=card.channels, layout="NCHW", dtype="float32"
    )


def letterboxed(
    samples: Sequence[Sample], card: Card
) -> Iterator[tuple[Sample, Image, Placement, tuple[int, ...]]]:
    """Yields sample, letterboxed image, placement and shape of the original."""
    contract = input_contract(card)
    for sample in samples:
        image = read_image(sample, card.channels)
        boxed, placement = letterbox(image, contract)
        yield sample, boxed, placement, image.shape


@torch.no_grad()
def network_predictions(
    forward: Forward,
    card: Card,
    dataset: Dataset,
    *,
    progress: Progress,
    title: str,
    device: torch.device,
    batch_size: int = 16,
) -> dict[int, Any]:
    """Returns detections (or logits ``(C,)``) of every image by image id.

    Args:
        forward: The network, in evaluation mode.
        card: Input size, channels and strides.
        dataset: Images to predict.
        progress: Shows the count.
        title: Shown beside it.
        device: Where the network is.
        batch_size: Images at once.
    """
    results: dict[int, Any] = {}
    samples = dataset.samples
    with progress.meter(title, len(samples)) as meter:
        for start in range(0, len(samples), batch_size):
            chunk = list(letterboxed(samples[start : start + batch_size], card))
            pixels = torch.from_numpy(np.stack([image for _, image, _, _ in chunk]))
            images = normalise(pixels.permute(0, 3, 1, 2)).to(device)
            outputs = [o.float().cpu().numpy() for o in forward(images)]
            for row, (sample, _, placement, shape) in enumerate(chunk):
                one = [o[row : row + 1] for o in outputs]
                results[sample.image_id] = (
                    _detections(one, card, placement, shape)
                    if card.task is Task.DETECTION
                    else one[0][0]
                )
            meter.update(min(start + batch_size, len(samples)))
    return results


def _detections(
    outputs: list[NDArray[np.float32]], card: Card, placement: Placement, shape: tuple[int, ...]
) -> Detections:
    specification = {
        "outputs": [
            {"role": role, "stride": s, "layout": "NCHW", "scale": None, "zero_point": None}
            for s in card.strides
            for role in ("scores", "boxes")
        ]
    }
    return placed_detections(outputs, specification, placement, shape)
