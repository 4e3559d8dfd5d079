"""Buildings and trees of a demo scene, and what of an object they leave to be seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageChops, ImageDraw, ImageStat

from edgekd.data.demo.canvas import SUPERSAMPLING, Canvas, outline_mask
from edgekd.data.demo.shapes import (
    Camera,
    Colour,
    Outline,
    Points,
    Pose,
    Solid,
    flat,
    oblong,
    pick,
    shade,
)

ROOFS: tuple[Colour, ...] = (
    *((150, 148, 144), (124, 84, 68), (96, 98, 104), (178, 176, 170), (140, 110, 90)),
)
LEAVES: tuple[Colour, ...] = ((58, 80, 42), (72, 92, 50), (46, 70, 44), (96, 98, 52))
LEAST_VISIBLE = 0.3
LEAST_SIDE = 3.0
LEAF_CLUSTERS = 14

Box = tuple[float, float, float, float]


class Cover:
    """Collects what stands above the objects; painted after them."""

    def __init__(self, camera: Camera, size: tuple[int, int]) -> None:
        """Returns nothing covering an image of ``size`` (width, height) canvas pixels."""
        self.camera = camera
        self._painted: list[tuple[Outline, Colour]] = []
        self._shadows: list[Outline] = []
        self._exposed = Pillow.new("L", size, 255)
        self._hide = ImageDraw.Draw(self._exposed)

    def add_building(
        self, rng: np.random.Generator, pose: Pose, length: float, width: float
    ) -> None:
        """Raises a flat-roofed building with air-conditioning boxes on it."""
        tall, paint = rng.uniform(2.5, 6), pick(rng, ROOFS)
        roof = oblong(length - 0.8, width - 0.8)
        solids = [
            Solid(footprint=oblong(length, width), low=0, high=tall, colour=paint),
            Solid(footprint=roof, low=tall, high=tall, colour=shade(paint, 0.9)),
        ]
        for _ in range(int(rng.integers(0, 6))):
            place = rng.uniform(-0.4, 0.4, 2) * (length, width)
            box, top = oblong(*rng.uniform(0.8, 2.2, 2)) + place, tall + rng.uniform(0.4, 1.2)
            grey = shade((170, 172, 174), rng.uniform(0.5, 1.15))
            solids.append(Solid(footprint=box, low=tall, high=top, colour=grey))
        placed = [solid.at(pose) for solid in solids]
        self._shadows.append(self.camera.shadow(placed[0]))
        self._hide.polygon(flat(self.camera.outline(placed[0])), fill=0)
        for solid in placed:
            self._painted.append((flat(self.camera.outline(solid)), shade(solid.colour, 0.6)))
            top_face = self.camera.project(solid.footprint, solid.high)
            self._painted.append((top_face, solid.colour))

    def add_tree(self, rng: np.random.Generator, x: float, y: float) -> None:
        """Plants a tree: a heap of leaf clusters, brighter towards its top and the sun."""
        radius, leaf = rng.uniform(1.5, 3.6), pick(rng, LEAVES)
        to_sun = -np.array(self.camera.sun) / np.hypot(*self.camera.sun)
        for level in range(LEAF_CLUSTERS):
            angle = rng.uniform(0, 2 * np.pi)
            away = radius * 0.7 * np.sqrt(rng.random()) * (1 - level / (2 * LEAF_CLUSTERS))
            spot = (x + away * np.cos(angle), y + away * np.sin(angle))
            cluster = _leaves(rng, radius * rng.uniform(0.3, 0.55)) + spot
            cluster += to_sun * radius * 0.02 * level
            tall = 2.5 + radius * 0.05 * level
            outline = self.camera.project(cluster, tall)
            light = 0.6 + 0.045 * level + rng.uniform(-0.1, 0.1)
            self._painted.append((outline, shade(leaf, light)))
            self._hide.polygon(outline, fill=0)
            shifted = cluster + np.multiply(self.camera.sun, tall)
            self._shadows.append(self.camera.project(shifted))

    def visible_box(self, solids: Sequence[Solid]) -> Box | None:
        """Returns the object's box in photograph pixels, None where too little of it shows.

        The box bounds the whole object, hidden parts too, clipped to the image.
        """
        outlines = [self.camera.outline(solid) for solid in solids]
        corners = np.concatenate(outlines)
        left, top = (int(edge) - 2 for edge in corners.min(axis=0))
        right, bottom = (int(edge) + 3 for edge in corners.max(axis=0))
        shifted = [outline - (left, top) for outline in outlines]
        stencil = outline_mask((right - left, bottom - top), shifted)
        # A crop beyond the image reads 0, which is how the outside counts as hidden.
        seen = ImageChops.multiply(stencil, self._exposed.crop((left, top, right, bottom)))
        bounds = stencil.getbbox()
        whole = ImageStat.Stat(stencil).sum[0]
        if bounds is None or ImageStat.Stat(seen).sum[0] < LEAST_VISIBLE * whole:
            return None
        in_canvas = np.add(bounds, (left, top, left, top)).clip(0, self._exposed.size * 2)
        box = in_canvas / SUPERSAMPLING
        if (box[2:] - box[:2]).min() < LEAST_SIDE:
            return None
        return float(box[0]), float(box[1]), float(box[2]), float(box[3])

    def hide_behind(self, solids: Sequence[Solid]) -> None:
        """Lets an object hide what is placed after it."""
        for solid in solids:
            self._hide.polygon(flat(self.camera.outline(solid)), fill=0)

    def paint(self, canvas: Canvas, darkness: int) -> None:
        """Paints the shadows of the cover, then the cover itself."""
        canvas.cast(self._shadows, darkness)
        for outline, colour in self._painted:
            canvas.paint(outline, colour)


def _leaves(rng: np.random.Generator, radius: float) -> Points:
    angles = np.arange(9) * (2 * np.pi / 9)
    reach = radius * rng.uniform(0.75, 1.2, 9)
    return np.column_stack((reach * np.cos(angles), reach * np.sin(angles)))
