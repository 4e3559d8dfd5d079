"""The surface that a demo scene is painted on, and the photograph taken of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter

from edgekd.core.types import Image
from edgekd.data.demo.shapes import Camera, Colour, Outline, Points, flat

SUPERSAMPLING = 2
SHADOW: Colour = (12, 16, 30)


class Canvas:
    """An RGB image ``SUPERSAMPLING`` times the photograph's size, drawn on in metres or pixels."""

    def __init__(self, base: Image, size: tuple[int, int], camera: Camera) -> None:
        """Returns a canvas whose ground is ``base`` (h, w, 3), enlarged to (width, height)."""
        self.camera = camera
        self.image = Pillow.fromarray(base).resize(size, Pillow.Resampling.BILINEAR)
        self._pen = ImageDraw.Draw(self.image)
        self._glaze = ImageDraw.Draw(self.image, "RGBA")

    def fill(self, ground: Points, colour: Colour) -> None:
        """Paints a polygon (n, 2) in metres on the ground."""
        self._pen.polygon(self.camera.project(ground), fill=colour)

    def stain(self, ground: Points, colour: Colour, opacity: int) -> None:
        """Paints a polygon (n, 2) in metres on the ground, ``opacity`` 0..255."""
        self._glaze.polygon(self.camera.project(ground), fill=(*colour, opacity))

    def paint(self, outline: Outline, colour: Colour) -> None:
        """Paints a polygon given in pixels."""
        self._pen.polygon(outline, fill=colour)

    def cast(self, shadows: Sequence[Outline], darkness: int) -> None:
        """Darkens the union of the polygons (pixels) by ``darkness`` 0..255."""
        # Through one mask, so that shadows that overlap are not darker there.
        mask = Pillow.new("L", self.image.size)
        pen = ImageDraw.Draw(mask)
        for outline in shadows:
            pen.polygon(outline, fill=darkness)
        self.image.paste(SHADOW, mask=mask)

    def photograph(self, rng: np.random.Generator) -> Image:
        """Returns the canvas as a random camera saw it: blur, light, haze and grain, (H, W, 3)."""
        small = self.image.reduce(SUPERSAMPLING)
        blur = rng.uniform(-0.3, 0.8)
        if blur > 0:
            small = small.filter(ImageFilter.BoxBlur(blur))
        contrast, gain, haze = rng.uniform(0.55, 1.1), rng.uniform(0.6, 1.2), rng.uniform(0, 35)
        tint = rng.uniform(0.95, 1.05, (3, 1))
        curve = ((np.arange(256) - 105) * contrast + 105) * gain * tint + haze
        graded = small.point(curve.clip(0, 255).astype(np.uint8).ravel().tolist())
        clouds = rng.uniform(0, rng.uniform(5, 40), (4, 5)).astype(np.uint8)
        light = Pillow.fromarray(clouds).resize(small.size, Pillow.Resampling.BICUBIC)
        pixels = np.asarray(graded, np.int16) + np.asarray(light, np.int16)[..., None]
        grain = int(rng.integers(2, 10))
        pixels += rng.integers(-grain, grain + 1, pixels.shape, np.int8)
        return pixels.clip(0, 255).astype(np.uint8)


def outline_mask(size: tuple[int, int], outlines: Sequence[Points]) -> Pillow.Image:
    """Returns a grey image of (width, height): 255 inside any of the polygons (n, 2), else 0."""
    mask = Pillow.new("L", size)
    pen = ImageDraw.Draw(mask)
    for outline in outlines:
        pen.polygon(flat(outline), fill=255)
    return mask
