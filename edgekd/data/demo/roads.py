"""Roads of a demo scene: where they run, how they are painted, where traffic stands on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.data.demo.canvas import Canvas
from edgekd.data.demo.shapes import Colour, Points, Pose, oblong, pick, posed, shade

LANE = 3.3
PAVEMENT = 2.6
KERB: Colour = (172, 170, 164)
MARKING: Colour = (206, 206, 198)
ASPHALTS: tuple[Colour, ...] = ((84, 85, 88), (98, 98, 99), (70, 71, 75), (112, 110, 106))
PAVEMENTS: tuple[Colour, ...] = ((148, 144, 138), (132, 130, 126), (160, 150, 138))
ARROW: Points = np.array(
    [(2, 0), (0.6, 0.6), (0.6, 0.15), (-2, 0.15), (-2, -0.15), (0.6, -0.15), (0.6, -0.6)]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Road:
    """A bent strip on the ground.

    Attributes:
        centre: ``(n, 2)`` metres, the centre line.
        normals: ``(n, 2)`` unit vectors across it, to the right.
        seen: Indices of the centre line's points inside the image.
        half: Half the road's width in metres.
    """

    centre: Points
    normals: Points
    seen: NDArray[np.int64]
    half: float

    def ribbon(self, inner: float, outer: float, part: slice = slice(None)) -> Points:
        """Returns the outline of the strip between two offsets from the centre line."""
        near = self.centre[part] + self.normals[part] * inner
        far = self.centre[part] + self.normals[part] * outer
        return np.concatenate((near, far[::-1]))

    def pose(self, rng: np.random.Generator, offset: float) -> Pose:
        """Returns a random place at this offset from the centre line, and the heading there."""
        step = int(self.seen[rng.integers(len(self.seen))])
        x, y = self.centre[step] + self.normals[step] * offset
        normal_x, normal_y = self.normals[step]
        # The left half drives the other way.
        turn = np.pi if offset < 0 else 0.0
        return float(x), float(y), float(np.arctan2(-normal_x, normal_y) + turn)

    def lane_pose(self, rng: np.random.Generator) -> Pose:
        """Returns a random place in a random lane, and the heading there."""
        lane = (int(rng.integers(round(2 * self.half / LANE))) + 0.5) * LANE - self.half
        return self.pose(rng, float(lane + rng.uniform(-0.3, 0.3)))

    def distance(self, x: float, y: float) -> float:
        """Returns metres from a place to the road's edge, negative on the road."""
        return float(np.hypot(*(self.centre - (x, y)).T).min() - self.half)


def lay_roads(rng: np.random.Generator, canvas: Canvas, extent: Points) -> list[Road]:
    """Returns one or two painted roads; ``extent`` is half the image's size in metres."""
    first = rng.uniform(0, np.pi)
    count = int(rng.choice([1, 2, 2]))
    roads = [_bend(rng, first + number * rng.uniform(0.9, 2.2), extent) for number in range(count)]
    for road in roads:
        canvas.fill(road.ribbon(-road.half - PAVEMENT, road.half + PAVEMENT), pick(rng, PAVEMENTS))
        canvas.fill(road.ribbon(-road.half - 0.3, road.half + 0.3), KERB)
    surface = pick(rng, ASPHALTS)
    for road in roads:
        canvas.fill(road.ribbon(-road.half, road.half), surface)
        _mark(rng, canvas, road)
    return roads


def _bend(rng: np.random.Generator, heading: float, extent: Points) -> Road:
    reach = float(np.hypot(*extent)) * 1.5
    steps = np.linspace(-reach, reach, 61)
    bend = rng.uniform(-1, 1) / 70 if rng.random() < 0.5 else 0.0
    angles = heading + bend * steps
    ahead = np.column_stack((np.cos(angles), np.sin(angles)))
    centre = np.cumsum(ahead, axis=0) * (steps[1] - steps[0])
    centre += rng.uniform(-0.6, 0.6, 2) * extent - centre[30]
    seen = np.flatnonzero((np.abs(centre) < extent + 1.0).all(axis=1))
    normals = np.column_stack((-ahead[:, 1], ahead[:, 0]))
    return Road(centre=centre, normals=normals, seen=seen, half=LANE * int(rng.choice([1, 1, 2])))


def _mark(rng: np.random.Generator, canvas: Canvas, road: Road) -> None:
    white = shade(MARKING, rng.uniform(0.65, 1.05))
    for lane in np.arange(-road.half + LANE / 2, road.half, LANE):
        for track in (lane - 0.75, lane + 0.75):
            canvas.stain(road.ribbon(track - 0.25, track + 0.25), (30, 30, 34), 22)
    for edge in (0.4 - road.half, road.half - 0.4):
        canvas.fill(road.ribbon(edge - 0.08, edge + 0.08), white)
    start, stop = max(0, int(road.seen[0]) - 4), min(len(road.centre) - 1, int(road.seen[-1]) + 4)
    for offset in np.arange(LANE - road.half, road.half - 0.1, LANE):
        for step in range(start, stop, 2):
            canvas.fill(road.ribbon(offset - 0.1, offset + 0.1, slice(step, step + 2)), white)
    if rng.random() < 0.5:
        _paint_crossing(rng, canvas, road, white)
    for _ in range(int(rng.integers(1, 5))):
        pose, opacity = road.lane_pose(rng), int(rng.uniform(90, 230))
        if rng.random() < 0.6:
            canvas.stain(posed(ARROW, pose), white, opacity)
        else:
            canvas.stain(posed(oblong(3.5, 1.8), pose), (44, 44, 48), opacity)


def _paint_crossing(rng: np.random.Generator, canvas: Canvas, road: Road, white: Colour) -> None:
    x, y, heading = road.pose(rng, 0.0)
    for across in np.arange(0.7 - road.half, road.half - 0.2, 1.1):
        bar = np.add(oblong(3.0, 0.55), (0.0, across))
        canvas.stain(posed(bar, (x, y, heading)), white, 225)
