"""Seeded augmentation in numpy and Pillow: placement, mosaic, flips, light.

Geometry is done with the resampling filter that letterboxing uses (Pillow's antialiased bilinear),
so that training and deployment see small objects blurred alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from edgekd.recipe import Augmentation
from edgekd.types import Boxes, Image, Sample


@dataclass(frozen=True, slots=True)
class View:
    """A training image and its annotation, in the network's input pixels.

    Attributes:
        image: uint8 ``(H, W, C)``.
        boxes: ``(N, 4)``.
        labels: ``(N,)``.
        ignore: ``(M, 4)``.
        ignore_labels: ``(M,)``.
    """

    image: Image
    boxes: Boxes
    labels: NDArray[np.int64]
    ignore: Boxes
    ignore_labels: NDArray[np.int64]


Tile = tuple[Sample, Image]


def make_view(
    draw_tile: Callable[[int | None], Tile],
    size: tuple[int, int],
    options: Augmentation,
    rng: np.random.Generator,
    others: int,
) -> View:
    """Returns one augmented view.

    Args:
        draw_tile: Reads the view's own image (None) or another one of the set (its index).
        size: Height and width of the view.
        options: What may happen.
        rng: Source of all randomness.
        others: Images in the set, to draw a mosaic's other tiles from.
    """
    height, width = size
    own = draw_tile(None)
    if rng.random() < options.mosaic:
        split_y = round(height * rng.uniform(0.35, 0.65))
        split_x = round(width * rng.uniform(0.35, 0.65))
        areas = [
            (0, 0, split_x, split_y),
            (split_x, 0, width, split_y),
            (0, split_y, split_x, height),
            (split_x, split_y, width, height),
        ]
        tiles = [own] + [draw_tile(int(rng.integers(others))) for _ in range(3)]
    else:
        areas, tiles = [(0, 0, width, height)], [own]
    canvas = np.full((height, width, own[1].shape[2]), 128, dtype=np.uint8)
    placed = [
        _place(canvas, area, tile, size, options, rng)
        for area, tile in zip(areas, tiles, strict=True)
    ]
    view = View(
        canvas,
        *(np.concatenate([getattr(p, name) for p in placed]) for name in View.__slots__[1:]),
    )
    return _light(_flip(view, options, rng), options, rng)


def _place(
    canvas: Image,
    area: tuple[int, int, int, int],
    tile: Tile,
    size: tuple[int, int],
    options: Augmentation,
    rng: np.random.Generator,
) -> View:
    """Draws one image into an area of the canvas, in place; returns what is annotated there."""
    sample, image = tile
    left, top, right, bottom = area
    rows, columns = image.shape[:2]
    fit = min(size[0] / rows, size[1] / columns)
    zoom = fit * np.exp(rng.uniform(*np.log(options.scale)))
    stretch = np.exp(rng.uniform(-1, 1) * np.log1p(options.stretch) / 2)
    scale = np.array([zoom * stretch, zoom / stretch])
    room = np.array([right - left, bottom - top]) - scale * (columns, rows)
    shift = (
        np.round(rng.uniform(0, 1, 2) * room) if options.scale[0] < options.scale[1] else room // 2
    )
    shift += (left, top)

    low = np.maximum(np.round(shift), (left, top)).astype(int)
    high = np.minimum(np.round(shift + scale * (columns, rows)), (right, bottom)).astype(int)
    if (high > low).all():
        x0, y0 = np.maximum((low - shift) / scale, 0)
        x1, y1 = np.minimum((high - shift) / scale, (columns, rows))
        pixels = PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        piece = pixels.resize(
            (int(high[0] - low[0]), int(high[1] - low[1])),
            PIL.Image.Resampling.BILINEAR,
            box=(float(x0), float(y0), float(x1), float(y1)),
        )
        drawn = np.asarray(piece)
        canvas[low[1] : high[1], low[0] : high[0]] = drawn[..., None] if drawn.ndim == 2 else drawn
    boxes, kept = _move(sample.boxes, scale, shift, area)
    ignore, hidden = _move(sample.ignore, scale, shift, area, visible=0.0)
    labels = sample.labels[kept] if len(sample.boxes) else sample.labels
    return View(canvas, boxes, labels, ignore, sample.ignore_labels[hidden])


def _move(
    boxes: Boxes,
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    area: tuple[int, int, int, int],
    visible: float = 0.3,
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Returns the boxes in view pixels, clipped to the area, and which of them are kept."""
    moved = boxes * np.tile(scale, 2) + np.tile(shift, 2)
    clipped = moved.copy()
    clipped[:, 0::2] = clipped[:, 0::2].clip(area[0], area[2])
    clipped[:, 1::2] = clipped[:, 1::2].clip(area[1], area[3])
    sides = clipped[:, 2:] - clipped[:, :2]
    whole = (moved[:, 2:] - moved[:, :2]).prod(axis=1)
    kept = (sides.min(axis=1, initial=np.inf) >= 2) & (sides.prod(axis=1) > visible * whole)
    return clipped[kept].astype(np.float32), kept


def _flip(view: View, options: Augmentation, rng: np.random.Generator) -> View:
    image, boxes, ignore = view.image, view.boxes, view.ignore
    height, width = image.shape[:2]
    if rng.random() < options.horizontal_flip:
        image = image[:, ::-1]
        boxes, ignore = (
            np.stack((width - b[:, 2], b[:, 1], width - b[:, 0], b[:, 3]), 1)
            for b in (boxes, ignore)
        )
    if rng.random() < options.vertical_flip:
        image = image[::-1]
        boxes, ignore = (
            np.stack((b[:, 0], height - b[:, 3], b[:, 2], height - b[:, 1]), 1)
            for b in (boxes, ignore)
        )
    return View(image, boxes, view.labels, ignore, view.ignore_labels)


def _light(view: View, options: Augmentation, rng: np.random.Generator) -> View:
    """Changes gain and gamma through one lookup table a channel."""
    channels = view.image.shape[2]
    gamma = np.exp(rng.uniform(-1, 1) * np.log1p(options.gamma))
    gain = 1 + rng.uniform(-1, 1) * options.brightness
    gains = gain * (1 + rng.uniform(-1, 1, channels) * options.colour)
    ramp = 255 * (np.arange(256) / 255) ** gamma
    table = np.clip(np.round(ramp[:, None] * gains), 0, 255).astype(np.uint8)
    image = np.stack([table[view.image[..., c], c] for c in range(channels)], axis=-1)
    return View(image, view.boxes, view.labels, view.ignore, view.ignore_labels)
