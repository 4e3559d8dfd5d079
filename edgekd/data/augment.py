"""Seeded augmentation in numpy and Pillow: placement, mosaic, flips, light.

Geometry is done with the resampling filter that letterboxing uses (Pillow's antialiased bilinear),
so that training and deployment see small objects blurred alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from edgekd.config.sections import Augmentation
from edgekd.core.types import Boxes, Image, Sample


@dataclass(frozen=True, slots=True)
class View:
    """A training image and its annotation, in the network's input pixels.

    Attributes:
        image: uint8 ``(H, W, C)``.
        boxes: ``(N, 4)``.
        labels: ``(N,)``.
        ignore: ``(M, 4)``.
        ignore_labels: ``(M,)``.
        teacher_view: The same view in more pixels, for a teacher with a larger input; its top left
            corner is the image's. None where nobody asked for it.
    """

    image: Image
    boxes: Boxes
    labels: NDArray[np.int64]
    ignore: Boxes
    ignore_labels: NDArray[np.int64]
    teacher_view: Image | None = None


Tile = tuple[Sample, Image]


def magnification(size: tuple[int, int], larger: tuple[int, int]) -> float:
    """Returns pixels of a ``larger`` input (height, width) for one pixel of a view of ``size``."""
    return min(larger[0] / size[0], larger[1] / size[1])


def make_view(
    draw_tile: Callable[[int | None], Tile],
    size: tuple[int, int],
    options: Augmentation,
    rng: np.random.Generator,
    others: int,
    teacher_resolution: tuple[int, int] | None = None,
) -> View:
    """Returns one augmented view.

    Args:
        draw_tile: Reads the view's own image (None) or another one of the set (its index).
        size: Height and width of the view.
        options: What may happen.
        rng: Source of all randomness.
        others: Images in the set, to draw a mosaic's other tiles from.
        teacher_resolution: Height and width of the same view for a teacher, None for none.
    """
    own = draw_tile(None)
    areas = _areas(size, options, rng)
    tiles = [own] + [draw_tile(int(rng.integers(others))) for _ in areas[1:]]
    pieces = [
        _place(area, tile, size, options, rng) for area, tile in zip(areas, tiles, strict=True)
    ]
    view = View(
        _drawn(pieces, size, 1.0),
        np.concatenate([p.boxes for p in pieces]),
        np.concatenate([p.labels for p in pieces]),
        np.concatenate([p.ignore for p in pieces]),
        np.concatenate([p.ignore_labels for p in pieces]),
        _drawn(pieces, size, magnification(size, teacher_resolution))
        if teacher_resolution
        else None,
    )
    view = _light(_flip(_shifted(view, options, rng), options, rng), options, rng)
    if teacher_resolution is None:
        return view
    return replace(view, teacher_view=_padded(view.teacher_view, teacher_resolution))


Area = tuple[int, int, int, int]
"""Left, top, right, bottom, pixels of the view."""


def _areas(size: tuple[int, int], options: Augmentation, rng: np.random.Generator) -> list[Area]:
    """Returns the areas of a mosaic, or the whole view."""
    height, width = size
    if rng.random() >= options.mosaic:
        return [(0, 0, width, height)]
    split_y = round(height * rng.uniform(0.35, 0.65))
    split_x = round(width * rng.uniform(0.35, 0.65))
    return [
        (0, 0, split_x, split_y),
        (split_x, 0, width, split_y),
        (0, split_y, split_x, height),
        (split_x, split_y, width, height),
    ]


@dataclass(frozen=True, slots=True)
class _Piece:
    """One image in a view.

    Attributes:
        pixels: The whole image.
        source: Part of it that is seen: left, top, right, bottom in its pixels.
        place: Where that lies in the view; None where nothing is seen.
    """

    pixels: Image
    source: tuple[float, float, float, float]
    place: Area | None
    boxes: Boxes
    labels: NDArray[np.int64]
    ignore: Boxes
    ignore_labels: NDArray[np.int64]


def _place(
    area: Area,
    tile: Tile,
    size: tuple[int, int],
    options: Augmentation,
    rng: np.random.Generator,
) -> _Piece:
    """Returns where one image lies in an area of the view, and what is annotated there."""
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
    x0, y0 = np.maximum((low - shift) / scale, 0)
    x1, y1 = np.minimum((high - shift) / scale, (columns, rows))
    boxes, kept = _move(sample.boxes, scale, shift, area)
    ignore, hidden = _move(sample.ignore, scale, shift, area, visible=0.0)
    return _Piece(
        pixels=image,
        source=(float(x0), float(y0), float(x1), float(y1)),
        place=(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        if (high > low).all()
        else None,
        boxes=boxes,
        labels=sample.labels[kept] if len(sample.boxes) else sample.labels,
        ignore=ignore,
        ignore_labels=sample.ignore_labels[hidden],
    )


def _drawn(pieces: Sequence[_Piece], size: tuple[int, int], factor: float) -> Image:
    """Returns the pieces on grey, ``factor`` pixels for one of the view."""
    height, width = (round(n * factor) for n in size)
    canvas = np.full((height, width, pieces[0].pixels.shape[2]), 128, dtype=np.uint8)
    for piece in pieces:
        if piece.place is None:
            continue
        left, top, right, bottom = (round(n * factor) for n in piece.place)
        image = piece.pixels
        drawn = np.asarray(
            PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).resize(
                (right - left, bottom - top), PIL.Image.Resampling.BILINEAR, box=piece.source
            )
        )
        canvas[top:bottom, left:right] = drawn[..., None] if drawn.ndim == 2 else drawn
    return canvas


def _padded(image: Image | None, size: tuple[int, int]) -> Image | None:
    """Returns the image with grey at its right and bottom, up to ``size``."""
    if image is None:
        return None
    missing = [(0, wanted - have) for wanted, have in zip(size, image.shape[:2], strict=True)]
    return np.pad(image, [*missing, (0, 0)], constant_values=128)


def _move(
    boxes: Boxes,
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    area: tuple[int, int, int, int],
    visible: float = 0.3,
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Returns the boxes in view pixels, clipped to the area, and which of them are kept."""
    if not len(boxes):
        return boxes, np.zeros(0, dtype=np.bool_)
    moved = boxes * np.tile(scale, 2) + np.tile(shift, 2)
    clipped = moved.copy()
    clipped[:, 0::2] = clipped[:, 0::2].clip(area[0], area[2])
    clipped[:, 1::2] = clipped[:, 1::2].clip(area[1], area[3])
    sides = clipped[:, 2:] - clipped[:, :2]
    whole = (moved[:, 2:] - moved[:, :2]).prod(axis=1)
    kept = (sides.min(axis=1, initial=np.inf) >= 2) & (sides.prod(axis=1) > visible * whole)
    return clipped[kept].astype(np.float32), kept


def _shifted(view: View, options: Augmentation, rng: np.random.Generator) -> View:
    """Returns the view moved as a whole, its edge repeated where the move uncovers something."""
    if not options.shift:
        return view
    height, width = view.image.shape[:2]
    down, right = (round(rng.uniform(-1, 1) * options.shift * n) for n in (height, width))
    move = np.array([right, down], dtype=np.float64)
    area = (0, 0, width, height)
    boxes, kept = _move(view.boxes, np.ones(2), move, area)
    ignore, hidden = _move(view.ignore, np.ones(2), move, area, visible=0.0)
    factor = 1.0 if view.teacher_view is None else view.teacher_view.shape[0] / height
    return View(
        _moved(view.image, down, right),
        boxes,
        view.labels[kept] if len(view.boxes) else view.labels,
        ignore,
        view.ignore_labels[hidden],
        None
        if view.teacher_view is None
        else _moved(view.teacher_view, round(down * factor), round(right * factor)),
    )


def _moved(image: Image, down: int, right: int) -> Image:
    """Returns the image moved by whole pixels, its edge repeated."""
    height, width = image.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return image[rows[:, None], columns]


def _flip(view: View, options: Augmentation, rng: np.random.Generator) -> View:
    height, width = view.image.shape[:2]
    if rng.random() < options.horizontal_flip:
        view = _mirrored(view, 1, width)
    if rng.random() < options.vertical_flip:
        view = _mirrored(view, 0, height)
    return view


def _mirrored(view: View, axis: int, length: int) -> View:
    """Returns the view mirrored along an axis of its array, ``length`` pixels long."""
    low, high = (0, 2) if axis == 1 else (1, 3)

    def moved(boxes: Boxes) -> Boxes:
        mirrored = boxes.copy()
        mirrored[:, low], mirrored[:, high] = length - boxes[:, high], length - boxes[:, low]
        return mirrored

    return replace(
        view,
        image=np.flip(view.image, axis),
        teacher_view=None if view.teacher_view is None else np.flip(view.teacher_view, axis),
        boxes=moved(view.boxes),
        ignore=moved(view.ignore),
    )


def _light(view: View, options: Augmentation, rng: np.random.Generator) -> View:
    """Changes gain and gamma through one lookup table a channel."""
    channels = view.image.shape[2]
    gamma = np.exp(rng.uniform(-1, 1) * np.log1p(options.gamma))
    gain = 1 + rng.uniform(-1, 1) * options.brightness
    gains = gain * (1 + rng.uniform(-1, 1, channels) * options.colour)
    ramp = 255 * (np.arange(256) / 255) ** gamma
    table = np.clip(np.round(ramp[:, None] * gains), 0, 255).astype(np.uint8)

    def lit(image: Image) -> Image:
        return np.stack([table[image[..., c], c] for c in range(channels)], axis=-1)

    teacher_view = None if view.teacher_view is None else lit(view.teacher_view)
    return replace(view, image=lit(view.image), teacher_view=teacher_view)
