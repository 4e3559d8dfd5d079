"""One scene of the demo set: what stands where, and in which order it is painted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.core.types import Image
from edgekd.data.demo.canvas import SUPERSAMPLING, Canvas
from edgekd.data.demo.cover import Box, Cover
from edgekd.data.demo.objects import LOOKALIKES, OBJECTS
from edgekd.data.demo.roads import ASPHALTS, MARKING, lay_roads
from edgekd.data.demo.shapes import (
    Camera,
    Colour,
    Points,
    Pose,
    Solid,
    flat,
    oblong,
    pick,
    posed,
    shade,
)

PIXELS_PER_METRE = 5.0
ZOOM = (0.7, 1.5)
STALL = (5.2, 2.6)
SHARES = {"truck": 0.15, "car": 0.46, "cyclist": 0.17, "pedestrian": 0.22}
ATTEMPTS = 25
"""Places tried for an object before the scene goes without it."""

GROUNDS: tuple[Colour, ...] = (
    *((86, 104, 62), (104, 112, 70), (122, 118, 84), (128, 108, 84), (146, 142, 134)),
    *((118, 116, 112), (74, 90, 58)),
)


class Scene:
    """One random scene; every choice comes from ``rng``, in a fixed order."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        """Returns a scene of ``width x height`` pixels with its ground, roads and cover laid."""
        self.rng = rng
        self.size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self.camera = _camera(rng, self.size)
        corner = self.camera.pixels(np.ones((1, 2)))[0] - self.camera.centre
        self.extent: Points = np.array(self.size) / 2 / corner
        self.darkness = int(rng.uniform(40, 165))
        self.things: list[list[Solid]] = []
        self.taken: Points = np.empty((0, 3))
        self.cover = Cover(self.camera, self.size)
        self.canvas = Canvas(self._ground(), self.size, self.camera)
        self._lay_patches()
        stalls = self._lay_lot()
        self.roads = lay_roads(rng, self.canvas, self.extent)
        self.stalls = [stall for stall in stalls if self._road_distance(*stall[:2]) > 3.5]
        self._raise_cover()

    def render(self) -> tuple[Image, list[Box], list[str]]:
        """Returns the photograph (height, width, 3), boxes in its pixels and class names."""
        boxes: list[Box] = []
        names: list[str] = []
        count = int(self.rng.integers(5, 19))
        drawn = self.rng.choice(list(SHARES), count, p=list(SHARES.values())).tolist()
        # The largest first, so that none is put in front of a smaller one and hides it.
        for name in sorted(drawn, key=list(SHARES).index):
            box = self._place(name)
            if box is not None:
                boxes.append(box)
                names.append(name)
        self._place_lookalikes()
        self._paint_things()
        self.cover.paint(self.canvas, self.darkness)
        return self.canvas.photograph(self.rng), boxes, names

    def _ground(self) -> Image:
        width, height = self.size
        noise = self.rng.normal(0, self.rng.uniform(3, 9), (height // 8, width // 8, 1))
        ground = np.array(pick(self.rng, GROUNDS)) + noise
        return ground.clip(0, 255).astype(np.uint8)

    def _lay_patches(self) -> None:
        rng = self.rng
        for _ in range(int(rng.integers(2, 7))):
            length, width, corner = rng.uniform((4, 4, 0), (30, 30, 2)).tolist()
            patch = oblong(length, width, corner)
            opacity = int(rng.uniform(60, 220))
            self.canvas.stain(posed(patch, self._anywhere()), pick(rng, GROUNDS), opacity)

    def _lay_lot(self) -> list[Pose]:
        """Returns the stalls of a car park in two rows, painted; none in some scenes."""
        rng = self.rng
        if rng.random() < 0.45:
            return []
        lot = self._anywhere()
        count, aisle = int(rng.integers(4, 10)), rng.uniform(5, 7)
        surface, line = pick(rng, ASPHALTS), shade(MARKING, rng.uniform(0.6, 1.0))
        deep, wide = STALL
        self.canvas.fill(posed(oblong(2 * deep + aisle, count * wide + 1), lot), surface)
        stalls: list[Pose] = []
        for ahead in (-(deep + aisle) / 2, (deep + aisle) / 2):
            for across in (np.arange(count + 1) - count / 2) * wide:
                self.canvas.fill(posed(np.add(oblong(deep, 0.16), (ahead, across)), lot), line)
            for across in (np.arange(count) + 0.5 - count / 2) * wide:
                x, y = posed(np.array([[ahead, across]]), lot)[0].tolist()
                turn = np.pi if rng.random() < 0.5 else 0.0
                stalls.append((x, y, lot[2] + turn))
        return stalls

    def _raise_cover(self) -> None:
        rng = self.rng
        for _ in range(int(rng.integers(0, 5))):
            x, y, heading = self._anywhere(1.15)
            length, width = rng.uniform(7, 18, 2).tolist()
            near_stall = any(np.hypot(x - at[0], y - at[1]) < length for at in self.stalls)
            if not near_stall and self._road_distance(x, y) > 3 + np.hypot(length, width) / 2:
                self.cover.add_building(rng, (x, y, heading), length, width)
                self._take(_discs((x, y, heading), length, width))
        for _ in range(int(rng.integers(2, 12))):
            x, y, _ = self._anywhere(1.1)
            if self._road_distance(x, y) > 2.0:
                self.cover.add_tree(rng, x, y)

    def _place(self, name: str) -> Box | None:
        solids = OBJECTS[name](self.rng)
        length, width = _plan(solids)
        for _ in range(ATTEMPTS):
            pose = self._spot_for(name)
            discs = _discs(pose, length, width)
            if not self._is_free(discs):
                continue
            placed = [solid.at(pose) for solid in solids]
            box = self.cover.visible_box(placed)
            if box is not None:
                self._take(discs)
                self.things.append(placed)
                self.cover.hide_behind(placed)
                return box
        return None

    def _place_lookalikes(self) -> None:
        rng = self.rng
        for _ in range(int(rng.integers(4, 16))):
            solids = LOOKALIKES[int(rng.integers(len(LOOKALIKES)))](rng)
            length, width = _plan(solids)
            pose = self._anywhere()
            discs = _discs(pose, length, width)
            if self._road_distance(*pose[:2]) > width / 2 and self._is_free(discs):
                self._take(discs)
                self.things.append([solid.at(pose) for solid in solids])

    def _spot_for(self, name: str) -> Pose:
        rng = self.rng
        road, choice = self.roads[int(rng.integers(len(self.roads)))], rng.random()
        side = 1 if rng.random() < 0.5 else -1
        if name in ("car", "truck"):
            if self.stalls and choice < (0.45 if name == "car" else 0.12):
                return self.stalls[int(rng.integers(len(self.stalls)))]
            if choice < 0.2:
                return self._wobble(road.pose(rng, side * (road.half + 1.3)), 0.04)
            return self._wobble(road.lane_pose(rng), 0.07)
        if name == "cyclist" and choice < 0.8:
            edge = road.half + rng.uniform(-1.6, 2.0)
            return self._wobble(road.pose(rng, side * edge), 0.15)
        if choice < 0.6:
            return self._wobble(road.pose(rng, side * (road.half + rng.uniform(0.3, 2.4))), 1.5)
        return self._anywhere()

    def _wobble(self, pose: Pose, angle: float) -> Pose:
        x, y = (pose[:2] + self.rng.uniform(-0.4, 0.4, 2)).tolist()
        return x, y, pose[2] + float(self.rng.normal(0, angle))

    def _anywhere(self, reach: float = 1.0) -> Pose:
        x, y = (self.rng.uniform(-reach, reach, 2) * self.extent).tolist()
        return x, y, float(self.rng.uniform(0, 2 * np.pi))

    def _road_distance(self, x: float, y: float) -> float:
        return min(road.distance(x, y) for road in self.roads)

    def _is_free(self, discs: Points) -> bool:
        gaps = np.hypot(*(discs[:, None, :2] - self.taken[None, :, :2]).transpose(2, 0, 1))
        return bool((gaps > discs[:, None, 2] + self.taken[None, :, 2] + 0.25).all())

    def _take(self, discs: Points) -> None:
        self.taken = np.concatenate((self.taken, discs))

    def _paint_things(self) -> None:
        # From the top of the image down: what stands lower in it stands in front.
        ordered = sorted(self.things, key=lambda solids: float(solids[0].footprint[:, 1].mean()))
        shadows = [self.camera.shadow(solid) for solids in ordered for solid in solids]
        self.canvas.cast(shadows, self.darkness)
        for solid in (solid for solids in ordered for solid in solids):
            self.canvas.paint(flat(self.camera.outline(solid)), shade(solid.colour, 0.62))
            self.canvas.paint(self.camera.project(solid.footprint, solid.high), solid.colour)


def _camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    azimuth, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.3)
    zoom = float(np.exp(rng.uniform(*np.log(ZOOM))))
    return Camera(
        scale=SUPERSAMPLING * PIXELS_PER_METRE * zoom,
        tilt=float(rng.uniform(0.12, 0.62)),
        centre=(size[0] / 2, size[1] / 2),
        sun=(float(reach * np.cos(azimuth)), float(reach * np.sin(azimuth))),
    )


def _plan(solids: Sequence[Solid]) -> tuple[float, float]:
    length, width = np.ptp(np.concatenate([solid.footprint for solid in solids]), axis=0).tolist()
    return length, width


def _discs(pose: Pose, length: float, width: float) -> Points:
    """Returns four discs (4, 3) as x, y, radius along an object's axis: room that it takes."""
    x, y, heading = pose
    along = np.array((-0.5, -1 / 6, 1 / 6, 0.5)) * max(0.0, length - width)
    radius = np.full(4, width / 2)
    return np.column_stack((x + along * np.cos(heading), y + along * np.sin(heading), radius))
