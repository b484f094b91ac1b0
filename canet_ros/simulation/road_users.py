# SPDX-License-Identifier: Apache-2.0
"""Solids of cars, pedestrians and cyclists. Each stands at the origin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from canet_ros.simulation.shapes import (
    BLACK,
    METAL,
    PAINTS,
    Sketch,
    Solid,
    StreetClass,
    Wall,
    bar,
    colours,
    pick,
    shaded,
    wheel,
)

_CAR_PAINTS = colours("989896 222426 bebcba 1e3c6e 821e22 605c5a 28303c 2c4a34 466e8c")
_CLOTHES = colours("202022 24385a 782828 7a7878 46423c 6e502c aaa5a0 325a46")
_TROUSERS = _CLOTHES[:5]
_SKINS = colours("cda082 a5785a 694832")

# Side views of cars, rear to front: positions along the car and heights, in metres. Corners 2 to 5 are the cabin.
_OUTLINES = (
    # saloon, hatchback, tall car, van
    ([-2.1, -2.1, -1.6, -1.05, 0.25, 1.0, 1.95, 2.1], [0.35, 0.92, 1.0, 1.42, 1.42, 0.96, 0.78, 0.38]),
    ([-1.9, -1.93, -1.8, -1.45, 0.3, 0.98, 1.75, 1.9], [0.35, 0.95, 1.02, 1.46, 1.46, 1.0, 0.82, 0.38]),
    ([-2.2, -2.25, -2.2, -2.0, 0.3, 1.05, 2.05, 2.2], [0.4, 1.1, 1.16, 1.8, 1.82, 1.15, 0.98, 0.42]),
    ([-2.6, -2.62, -2.6, -2.55, 1.1, 2.0, 2.5, 2.6], [0.4, 1.2, 1.3, 2.3, 2.35, 1.3, 1.05, 0.45]),
)
_VAN = 3


def car(rng: np.random.Generator, facing: int) -> Solid:
    """A car. facing: 1 if it drives away from the camera, -1 if it drives towards it."""
    kind = int(rng.choice(4, p=[0.34, 0.4, 0.18, 0.08]))
    outline, van = np.stack(_OUTLINES[kind], axis=1), kind == _VAN
    paint, glass = pick(rng, _CAR_PAINTS), (70.0, 62.0, 54.0)
    half = 0.85 if kind < 2 else 0.95
    half_widths = np.full(8, half)
    half_widths[3:5] -= 0.17
    edges = {side: np.stack([side * half_widths, outline[:, 1], outline[:, 0]], axis=1) for side in (-1, 1)}
    sketch = Sketch(StreetClass.CAR)
    for first in range(7):
        quad = np.stack([edges[-1][first], edges[1][first], edges[1][first + 1], edges[-1][first + 1]])
        along, up = outline[first + 1] - outline[first]
        normal = (0.0, float(along), float(-up))
        sketch.polygons(quad, paint, normal)
        if first == 4 or (first == 2 and not van):
            sketch.polygons(quad.mean(axis=0) + (quad - quad.mean(axis=0)) * 0.88, glass, normal, glow=0.05)
    for side, edge in edges.items():
        normal = (float(side), 0.0, 0.0)
        cabin = edge[2:6]
        sketch.polygons(edge[[0, 1, 2, 5, 6, 7]], paint, normal)
        sketch.polygons(cabin, shaded(paint, 0.9), normal)
        if not van:
            middle = cabin.mean(axis=0)
            sketch.polygons(middle + (cabin - middle) * [1, 0.7, 0.84], glass, normal, glow=0.03)
            pillar = bar((edge[2, 0], 1.02, -0.4), (edge[3, 0], outline[3, 1], -0.35), 0.1)
            sketch.polygons(pillar, paint, normal)
        for along in (outline[0, 0] + 0.75, outline[-1, 0] - 0.8):
            sketch.polygons(wheel(side * half, 0.34, along, 0.34), BLACK, normal)
            sketch.polygons(wheel(side * half, 0.34, along, 0.19), METAL, normal)
    _car_ends(sketch, outline, half)
    return Solid(sketch.patches, facing=facing)


def _car_ends(sketch: Sketch, outline: NDArray[np.float64], half: float) -> None:
    low, width = float(outline[0, 1]), 2 * half
    rear = Wall((-half, float(outline[0, 0]) - 0.04), (1, 0), (0, 0, -1))
    front = Wall((-half, float(outline[-1, 0]) + 0.02), (1, 0), (0, 0, 1))
    lamps, plates = colours("c81e24 e6e6e1"), colours("d7be3c d7d7d7")
    for wall, lamp, plate, y in zip(
        (rear, front), lamps, plates, (float(outline[1, 1]) - 0.3, 0.6), strict=True
    ):
        sketch.rectangles(
            wall, [(0.05, 0.28, 0, low + 0.05), (width - 0.28, width - 0.05, 0, low + 0.05)], BLACK
        )
        sketch.rectangles(wall, [0.02, width - 0.02, low - 0.12, low + 0.12], (34, 34, 34))
        sketch.rectangles(
            wall, [(0.04, 0.32, y, y + 0.2), (width - 0.32, width - 0.04, y, y + 0.2)], lamp, glow=0.35
        )
        if wall is front:
            sketch.rectangles(wall, [0.45, width - 0.45, 0.58, 0.74], BLACK)
        sketch.rectangles(wall, [half - 0.27, half + 0.27, low + 0.06, low + 0.18], plate)


def pedestrian(rng: np.random.Generator, phase: float) -> Solid:
    """A walking pedestrian. phase: within a stride, 0..1."""
    coat, trousers, skin = pick(rng, _CLOTHES, 0.3), pick(rng, _TROUSERS, 0.2), pick(rng, _SKINS, 0.1)
    tall = float(rng.uniform(0.9, 1.08))
    swing = 0.13 * float(np.sin(2 * np.pi * phase))
    hip, shoulder = 0.88 * tall, 1.45 * tall
    sketch = Sketch(StreetClass.PEDESTRIAN)
    for sign in (-1, 1):
        foot, knee = sign * (0.07 + swing), sign * (0.08 + 0.4 * swing)
        sketch.bar((0.09 * sign, hip, 0), (knee, 0.47 * tall, 0), 0.17, trousers)
        sketch.bar((knee, 0.47 * tall, 0), (foot, 0.05, 0), 0.13, trousers)
        sketch.bar((foot, 0.05, 0), (foot + 0.1, 0.03, 0), 0.08, BLACK)
    half = [(0.17, hip - 0.1, 0), (0.21, shoulder - 0.06, 0), (0.1, shoulder + 0.04, 0)]
    sketch.polygons(half + [(-x, y, s) for x, y, s in half[::-1]], coat)
    for sign in (-1, 1):
        hand = (sign * (0.25 - 0.4 * swing), hip - 0.02, 0)
        sketch.bar((0.2 * sign, shoulder - 0.06, 0), hand, 0.1, shaded(coat, 0.8))
        sketch.disc(hand[0], hand[1], 0.05, skin, 6)
    sketch.disc(0, shoulder + 0.17, 0.12, skin)
    sketch.disc(0, shoulder + 0.21, 0.115, pick(rng, colours("28221e 785a3c 1c1a1a")))
    return Solid(sketch.patches)


def cyclist(rng: np.random.Generator, phase: float, facing: int) -> Solid:
    """A cyclist. phase: of the pedals, 0..1. facing: as for a car."""
    coat, trousers = pick(rng, (*colours("d7c832 a02828"), *_CLOTHES), 0.2), pick(rng, _TROUSERS, 0.2)
    skin, paint = pick(rng, _SKINS, 0.1), pick(rng, PAINTS, 0.3)
    bicycle, rider = Sketch(StreetClass.BICYCLIST), Sketch(StreetClass.BICYCLIST)
    for s in (0.55, -0.5):
        bicycle.bar((0, 0, s), (0, 0.68, s), 0.07, BLACK)
        outer, inner = wheel(0, 0.34, s, 0.34), wheel(0, 0.34, s, 0.28)
        rim = [(outer[i], outer[i - 1], inner[i - 1], inner[i]) for i in range(12)]
        bicycle.polygons(rim, BLACK)
    bicycle.bar((0, 0.34, -0.5), (0, 0.9, -0.2), 0.05, paint)
    bicycle.bar((0, 0.34, 0.55), (0, 0.98, 0.42), 0.05, paint)
    bicycle.bar((0, 0.85, -0.2), (0, 0.9, 0.42), 0.05, paint)
    bicycle.bar((-0.28, 1.02, 0.42), (0.28, 1.02, 0.42), 0.05, BLACK)
    up, ahead = float(np.sin(2 * np.pi * phase)), float(np.cos(2 * np.pi * phase))
    for sign in (-1, 1):
        foot = (0.13 * sign, 0.34 + 0.17 * sign * up, 0.1 + 0.17 * sign * ahead)
        knee = (0.16 * sign, 0.72 + 0.1 * sign * up, 0.25)
        rider.bar(knee, foot, 0.12, trousers)
        rider.bar((0.1 * sign, 0.98, -0.2), knee, 0.16, trousers)
        rider.bar((0.2 * sign, 1.42, 0.05), (0.26 * sign, 1.05, 0.4), 0.1, coat)
    half = [(0.16, 0.92, -0.2), (0.23, 1.4, 0.02), (0.1, 1.52, 0.05)]
    rider.polygons(half + [(-x, y, s) for x, y, s in half[::-1]], coat)
    rider.disc(0, 1.62, 0.12, skin, s=0.1)
    rider.disc(0, 1.69, 0.13, pick(rng, PAINTS, 0.4), s=0.1)
    # The part nearer to the camera is painted last.
    order = (bicycle, rider) if facing > 0 else (rider, bicycle)
    return Solid([*order[0].patches, *order[1].patches], facing=facing)
