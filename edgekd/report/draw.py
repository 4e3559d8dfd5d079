"""Detections drawn over their image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from edgekd.core.errors import ModelError
from edgekd.core.types import Detections, Image

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

# Okabe and Ito's colours, which colour-blind readers can tell apart, lightened where a photograph
# would swallow them.
_PALETTE: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 190, 130),
    (240, 228, 66),
    (224, 130, 190),
    (235, 100, 30),
    (60, 120, 230),
    (235, 235, 235),
)
_INK: Colour = (16, 16, 16)
_COMFORTABLE_SIDE = 640
_GOLDEN_RATIO = 0.618034


def class_colour(label: int) -> Colour:
    """Returns the RGB colour of a class, the same in every picture and legend."""
    if label < len(_PALETTE):
        return _PALETTE[label]
    hue = (label * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: Image,
    detections: Detections,
    classes: Sequence[str],
    *,
    min_score: float = 0.3,
    show_scores: bool = True,
) -> Image:
    """Returns a copy of the image, RGB uint8 ``(H·k, W·k, 3)``, with boxes and class names on it.

    A small image is enlarged by k = 2 or 3 first, so that names can be read; k is 1 from 640
    pixels on the longer side.

    Args:
        image: ``(H, W, 1)`` or ``(H, W, 3)``.
        detections: Boxes in pixels of ``image``.
        classes: Names, indexed by label.
        min_score: Detections below it are left out.
        show_scores: Whether the score follows the name; pointless for annotated objects.

    Raises:
        ModelError: A label has no name in ``classes``.
    """
    if len(detections.labels) and int(detections.labels.max()) >= len(classes):
        raise ModelError(
            f"detection has label {int(detections.labels.max())}, but there are {len(classes)} "
            f"class names; legal: 0 to {len(classes) - 1}"
        )
    height, width = image.shape[:2]
    factor = min(3, max(1, _COMFORTABLE_SIDE // max(height, width)))
    canvas = _canvas(image, factor)
    pen = ImageDraw.Draw(canvas)
    shown = [int(index) for index in np.flatnonzero(detections.scores >= min_score)]
    boxes = [_inside(detections.boxes[index] * factor, canvas.size) for index in shown]
    colours = [class_colour(int(detections.labels[index])) for index in shown]
    # The best detection comes first in the record and is drawn last, over the others.
    for box, colour in reversed(list(zip(boxes, colours, strict=True))):
        _draw_box(pen, box, colour, canvas.size)
    texts = [_text(detections, index, classes, show_scores) for index in shown]
    _draw_labels(pen, texts, boxes, colours, canvas.size)
    return np.array(canvas)


def _canvas(image: Image, factor: int) -> Pictures.Image:
    pixels = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    picture = Pictures.fromarray(np.ascontiguousarray(pixels))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Pictures.Resampling.BICUBIC) if factor > 1 else picture


def _inside(box: np.ndarray, size: tuple[int, int]) -> Rectangle:
    width, height = size
    left, top = np.clip(np.round(box[:2]), 0, (width - 1, height - 1))
    right, bottom = np.clip(np.round(box[2:]), (left, top), (width - 1, height - 1))
    return int(left), int(top), int(right), int(bottom)


def _text(detections: Detections, index: int, classes: Sequence[str], show_scores: bool) -> str:
    name = classes[int(detections.labels[index])]
    return f"{name} {detections.scores[index]:.2f}" if show_scores else name


def _draw_box(
    pen: ImageDraw.ImageDraw, box: Rectangle, colour: Colour, size: tuple[int, int]
) -> None:
    line = max(2, round(max(size) / 500))
    left, top, right, bottom = box
    # A dark rim keeps the line visible on a background of its own colour.
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_INK, width=1)
    pen.rectangle(box, outline=colour, width=line)


def _draw_labels(
    pen: ImageDraw.ImageDraw,
    texts: Sequence[str],
    boxes: Sequence[Rectangle],
    colours: Sequence[Colour],
    size: tuple[int, int],
) -> None:
    font = ImageFont.load_default(size=max(12, round(max(size) / 46)))
    taken: list[Rectangle] = []
    for text, box, colour in zip(texts, boxes, colours, strict=True):
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        width, height = round(right - left) + 6, round(bottom - top) + 5
        place = _clear_place(box, (width, height), taken, boxes, size)
        taken.append(place)
        pen.rectangle(place, fill=colour, outline=_INK)
        pen.text((place[0] + 3 - left, place[1] + 2 - top), text, fill=_INK, font=font)


def _clear_place(
    box: Rectangle,
    label: tuple[int, int],
    taken: Sequence[Rectangle],
    boxes: Sequence[Rectangle],
    size: tuple[int, int],
) -> Rectangle:
    """Returns the place beside the box where a label hides the fewest labels, then boxes."""
    left, top, right, bottom = box
    width, height = label
    corners = (
        (left, top - height),
        (right - width, top - height),
        (left, bottom),
        (right - width, bottom),
        (right, top),
        (left - width, top),
        (left, top),
    )

    def hidden(place: Rectangle) -> tuple[int, int]:
        labels = sum(_overlap(place, other) for other in taken)
        return labels, sum(_overlap(place, other) for other in boxes)

    return min((_moved_inside(corner, label, size) for corner in corners), key=hidden)


def _moved_inside(
    corner: tuple[int, int], label: tuple[int, int], size: tuple[int, int]
) -> Rectangle:
    x = max(0, min(corner[0], size[0] - 1 - label[0]))
    y = max(0, min(corner[1], size[1] - 1 - label[1]))
    return x, y, x + label[0], y + label[1]


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
