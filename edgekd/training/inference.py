"""A network in torch over a data set, through the decoder that decodes exported files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.core.progress import Progress
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Dataset, Image, InputContract, OutputContract, Sample, Task
from edgekd.data.image import letterbox, read_image
from edgekd.data.loader import normalise
from edgekd.data.placement import Placement, placed_detections
from edgekd.nets.card import Card

Forward = Callable[[Tensor], Sequence[Tensor]]
"""Images in EdgeKD's normalisation to raw outputs."""


def input_contract(card: Card) -> InputContract:
    """Returns how an image becomes the network's input in torch."""
    return InputContract(
        height=card.height,
        width=card.width,
        channels=card.channels,
        layout="NCHW",
        dtype="float32",
        resize=card.own.resize if card.own else "letterbox",
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
    outputs: Sequence[OutputContract],
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
        card: Input size, channels and decoder.
        outputs: What the network returns.
        dataset: Images to predict.
        progress: Shows the count.
        title: Shown beside it.
        device: Where the network is.
        batch_size: Images at once.
    """
    results: dict[int, Any] = {}
    samples, contract = dataset.samples, specification(card, outputs)
    with progress.meter(title, len(samples)) as meter:
        for start in range(0, len(samples), batch_size):
            chunk = list(letterboxed(samples[start : start + batch_size], card))
            pixels = torch.from_numpy(np.stack([image for _, image, _, _ in chunk]))
            images = normalise(pixels.permute(0, 3, 1, 2)).to(device)
            arrays = [o.float().cpu().numpy() for o in forward(images)]
            for row, (sample, _, placement, shape) in enumerate(chunk):
                one = [a[row : row + 1] for a in arrays]
                results[sample.image_id] = (
                    placed_detections(one, contract, placement, shape)
                    if card.task is Task.DETECTION
                    else one[0][0]
                )
            meter.update(min(start + batch_size, len(samples)))
    return results


def specification(card: Card, outputs: Sequence[OutputContract]) -> dict[str, Any]:
    """Returns what the reference decoder must know about a network's raw outputs in torch."""
    own = card.own
    return {
        "input": {"height": card.height, "width": card.width},
        "outputs": [to_mapping(output) for output in outputs],
        "decoding": {
            "decoder": card.decoder,
            "priors": to_mapping(own.priors) if own and own.priors else None,
        },
    }
