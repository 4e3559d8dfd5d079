"""What stands in a demo scene: the four classes, and look-alikes that carry no label."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekd.data.demo.shapes import Colour, Solid, disc, oblong, pick, shade

GLASS: Colour = (34, 40, 48)
PAINTS: tuple[Colour, ...] = (
    *((214, 216, 218), (228, 228, 224), (150, 153, 158), (98, 101, 106), (70, 72, 76)),
    *((36, 37, 41), (48, 50, 56), (132, 30, 32), (36, 62, 118), (62, 92, 70), (176, 146, 82)),
    *((92, 66, 52), (176, 82, 40)),
)
CLOTHES: tuple[Colour, ...] = (
    *((40, 42, 50), (58, 60, 66), (90, 88, 84), (150, 40, 44), (40, 70, 130), (196, 196, 190)),
    *((120, 110, 90), (70, 100, 70), (206, 170, 60), (84, 60, 100)),
)
HEADS: tuple[Colour, ...] = ((52, 40, 32), (96, 72, 50), (30, 28, 28), (190, 150, 120))
CARGO: tuple[Colour, ...] = (
    *((222, 222, 220), (190, 192, 194), (140, 144, 150), (92, 96, 102), (62, 66, 74)),
    *((50, 84, 134), (128, 52, 42), (84, 96, 72)),
)
BINS: tuple[Colour, ...] = ((48, 66, 52), (60, 62, 66), (96, 92, 86), (120, 96, 50), (54, 66, 96))


def _car(rng: np.random.Generator) -> list[Solid]:
    if rng.random() < 0.2:
        return _van(rng)
    length, width = rng.uniform(3.9, 4.8), rng.uniform(1.75, 1.95)
    paint = pick(rng, PAINTS)
    cabin = length * rng.uniform(0.48, 0.66)
    ahead = -length * rng.uniform(0.03, 0.12)
    body = oblong(length, width, 0.32)
    glass = oblong(cabin, width * 0.9, 0.2, ahead)
    roof = oblong(cabin * 0.62, width * 0.78, 0.12, ahead - 0.05)
    return [
        Solid(footprint=body, low=0.15, high=0.85, colour=paint),
        Solid(footprint=glass, low=0.85, high=1.2, colour=GLASS),
        Solid(footprint=roof, low=1.2, high=1.4, colour=shade(paint, 1.06)),
    ]


def _van(rng: np.random.Generator) -> list[Solid]:
    length, width = rng.uniform(4.8, 5.9), rng.uniform(1.9, 2.1)
    paint = pick(rng, CARGO)
    screen = oblong(0.8, width * 0.92, 0.1, length * 0.3)
    roof = oblong(length * 0.7, width * 0.94, 0.1, -length * 0.12)
    return [
        Solid(footprint=oblong(length, width, 0.25), low=0.2, high=1.1, colour=paint),
        Solid(footprint=screen, low=1.1, high=1.6, colour=GLASS),
        Solid(footprint=roof, low=1.1, high=2.0, colour=shade(paint, 1.05)),
    ]


def _truck(rng: np.random.Generator) -> list[Solid]:
    length, width = rng.uniform(5.6, 8.8), rng.uniform(2.1, 2.5)
    cab, gap = rng.uniform(1.5, 2.0), rng.uniform(0.15, 0.5)
    paint, cargo = pick(rng, PAINTS), pick(rng, CARGO)
    flatbed = rng.random() < 0.25
    load = length - cab - gap
    screen = oblong(0.45, width * 0.84, 0.0, length / 2 - 0.3)
    top = 1.3 if flatbed else rng.uniform(2.3, 3.0)
    chassis = oblong(length - 0.4, width * 0.7)
    box = oblong(load, width, 0.0, (load - length) / 2)
    return [
        Solid(footprint=chassis, low=0.3, high=0.8, colour=(40, 40, 42)),
        Solid(footprint=box, low=0.6, high=top, colour=shade(cargo, 0.7 if flatbed else 1.0)),
        Solid(
            footprint=oblong(cab, width * 0.94, 0.2, (length - cab) / 2),
            low=0.3,
            high=1.5,
            colour=paint,
        ),
        Solid(footprint=screen, low=1.5, high=1.9, colour=GLASS),
        Solid(
            footprint=oblong(cab - 0.5, width * 0.88, 0.1, (length - cab) / 2 - 0.25),
            low=1.5,
            high=2.2,
            colour=paint,
        ),
    ]


def _bicycle(rng: np.random.Generator) -> list[Solid]:
    length = rng.uniform(2.1, 2.5)
    metal = shade((54, 54, 58), float(rng.uniform(0.6, 1.8)))
    bar = oblong(0.18, 0.75, 0.0, length * 0.24)
    return [
        Solid(footprint=oblong(length, 0.22), low=0.0, high=0.75, colour=metal),
        Solid(footprint=bar, low=0.9, high=1.05, colour=metal),
    ]


def _cyclist(rng: np.random.Generator) -> list[Solid]:
    rider = disc(1.0, 0.8)
    return [
        *_bicycle(rng),
        Solid(footprint=rider, low=0.8, high=1.6, colour=pick(rng, CLOTHES)),
        Solid(
            footprint=np.add(disc(0.5, 0.5), (0.3, 0.0)),
            low=1.6,
            high=1.95,
            colour=pick(rng, HEADS + CLOTHES),
        ),
    ]


def _pedestrian(rng: np.random.Generator) -> list[Solid]:
    stride = rng.uniform(0.4, 1.0)
    size = rng.uniform(0.9, 1.1)
    return [
        Solid(footprint=oblong(stride, 0.5, 0.1), low=0.0, high=1.0, colour=pick(rng, CLOTHES[:4])),
        Solid(
            footprint=disc(0.7 * size, 1.15 * size),
            low=0.9,
            high=1.8 * size,
            colour=pick(rng, CLOTHES),
        ),
        Solid(footprint=disc(0.52, 0.5), low=1.8 * size, high=2.2 * size, colour=pick(rng, HEADS)),
    ]


def _bin(rng: np.random.Generator) -> list[Solid]:
    side = rng.uniform(0.7, 1.1)
    foot = disc(side, side) if rng.random() < 0.5 else oblong(side, side * 1.2)
    return [Solid(footprint=foot, low=0.0, high=rng.uniform(1.0, 1.9), colour=pick(rng, BINS))]


def _bollard(rng: np.random.Generator) -> list[Solid]:
    grey = shade((150, 150, 146), float(rng.uniform(0.5, 1.3)))
    return [Solid(footprint=disc(0.45, 0.45), low=0.0, high=1.5, colour=grey)]


def _container(rng: np.random.Generator) -> list[Solid]:
    length, width = rng.uniform(3.4, 6.2), rng.uniform(1.7, 2.4)
    paint = pick(rng, CARGO)
    inside = oblong(length - 0.4, width - 0.4)
    return [
        Solid(footprint=oblong(length, width), low=0.0, high=1.3, colour=paint),
        Solid(footprint=inside, low=1.3, high=1.31, colour=shade(paint, rng.uniform(0.4, 1.0))),
    ]


def _bush(rng: np.random.Generator) -> list[Solid]:
    across = rng.uniform(0.9, 1.8)
    green = shade((58, 78, 44), float(rng.uniform(0.7, 1.3)))
    lit = np.add(disc(across * 0.6, across * 0.6), (0.1, -0.1))
    return [
        Solid(
            footprint=disc(across, across * rng.uniform(0.7, 1.2)), low=0.0, high=0.8, colour=green
        ),
        Solid(footprint=lit, low=0.8, high=1.2, colour=shade(green, 1.2)),
    ]


Build = Callable[[np.random.Generator], list[Solid]]
OBJECTS: dict[str, Build] = {
    "car": _car,
    "truck": _truck,
    "cyclist": _cyclist,
    "pedestrian": _pedestrian,
}
LOOKALIKES: tuple[Build, ...] = (_bin, _bollard, _container, _bush, _bicycle, _bush, _bin)
