"""Prisms in metres, the ground plans they stand on, and the camera that looks at them.

Everything in the demo set is a stack of prisms: x forward, y to the right, z up. The camera looks
down obliquely without perspective, so a prism looks like its base swept straight up the image, and
its shadow like its base swept along the ground away from the sun.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Points = NDArray[np.float64]
Outline = list[float]
Pose = tuple[float, float, float]
"""Place in metres and heading in radians."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solid:
    """A prism between two heights in metres.

    Attributes:
        footprint: ``(n, 2)`` metres; convex, its points going from x towards y.
        low: Height of the lower face.
        high: Height of the upper face.
        colour: Of the upper face.
    """

    footprint: Points
    low: float
    high: float
    colour: Colour

    def at(self, pose: Pose) -> Solid:
        """Returns the solid standing at ``pose``."""
        placed = posed(self.footprint, pose)
        return Solid(footprint=placed, low=self.low, high=self.high, colour=self.colour)


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """Parallel projection of metres to pixels.

    Attributes:
        scale: Pixels a metre.
        tilt: Sine of the angle from straight down: how far a metre of height shifts up the image.
        centre: Pixel that the world's origin falls on.
        sun: Where the shadow of a point one metre up falls, in metres on the ground.
    """

    scale: float
    tilt: float
    centre: tuple[float, float]
    sun: tuple[float, float]

    def pixels(self, ground: Points, height: float = 0.0) -> Points:
        """Returns pixels (n, 2) of ``ground`` (n, 2) lifted by ``height``, both in metres."""
        shift = self.centre[0], self.centre[1] - self.scale * self.tilt * height
        return ground * (self.scale, self.scale * math.sqrt(1.0 - self.tilt**2)) + shift

    def project(self, ground: Points, height: float = 0.0) -> Outline:
        """Returns the same as ``pixels``, as the flat list that Pillow draws."""
        return flat(self.pixels(ground, height))

    def outline(self, solid: Solid) -> Points:
        """Returns the outline (n, 2) of the projected solid, in pixels."""
        rise = self.scale * self.tilt * (solid.high - solid.low)
        return _swept(self.pixels(solid.footprint, solid.low), 0.0, -rise)

    def shadow(self, solid: Solid) -> Outline:
        """Returns the outline of the shadow that the solid casts on flat ground."""
        low, high = (
            solid.footprint + np.multiply(self.sun, end) for end in (solid.low, solid.high)
        )
        start = self.pixels(low)
        across, down = (self.pixels(high[:1]) - start[:1])[0].tolist()
        return flat(_swept(start, across, down))


def posed(points: Points, pose: Pose) -> Points:
    """Returns the points (n, 2) turned by the pose's heading, then shifted to its place."""
    x, y, heading = pose
    cosine, sine = math.cos(heading), math.sin(heading)
    turned: Points = points @ np.array([[cosine, sine], [-sine, cosine]])
    return np.add(turned, (x, y))


def flat(pixels: Points) -> Outline:
    """Returns points (n, 2) as the flat list that Pillow draws."""
    # Rounding keeps the last bit of a sine, which differs between machines, out of the picture.
    outline: Outline = pixels.round(2).ravel().tolist()
    return outline


def _swept(polygon: Points, across: float, down: float) -> Points:
    """Returns the outline of the area that a convex polygon (n, 2) covers when moved straight."""
    sideways = polygon @ np.array((-down, across))
    first, last = int(sideways.argmin()), int(sideways.argmax())
    turned = np.concatenate((polygon[first:], polygon[:first]))
    split = (last - first) % len(polygon)
    ahead = np.add(turned[: split + 1], (across, down))
    behind = np.concatenate((turned[split:], turned[:1]))
    return np.concatenate((ahead, behind))


def shade(colour: Colour, factor: float) -> Colour:
    """Returns the colour times ``factor``, limited to 0..255."""
    red, green, blue = (min(255, max(0, int(part * factor))) for part in colour)
    return red, green, blue


def pick(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    """Returns one colour of the palette, a little lighter or darker."""
    return shade(palette[int(rng.integers(len(palette)))], float(rng.uniform(0.85, 1.12)))


def oblong(length: float, width: float, corner: float = 0.0, forward: float = 0.0) -> Points:
    """Returns a rectangle (8, 2) with cut corners, centred ``forward`` metres ahead."""
    x, y = length / 2, width / 2
    right = [(x, y - corner), (x - corner, y), (corner - x, y), (-x, y - corner)]
    left = [(-x, corner - y), (corner - x, -y), (x - corner, -y), (x, corner - y)]
    return np.add(right + left, (forward, 0.0))


def disc(length: float, width: float) -> Points:
    """Returns an ellipse as a polygon (10, 2) with these diameters."""
    angles = np.arange(10) * (np.pi / 5)
    return np.column_stack((np.cos(angles) * length / 2, np.sin(angles) * width / 2))
