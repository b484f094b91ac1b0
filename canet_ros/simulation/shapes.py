# SPDX-License-Identifier: Apache-2.0
"""Solids made of flat coloured polygons, and shapes to build them from.

Points are (x, y, s) in metres: x to the right of the road's centre line, y up, s forward along the road.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[float, float, float]
"""Blue, green, red in full light, each 0..255."""
Point = Sequence[float] | NDArray[np.float64]


class StreetClass(IntEnum):
    """Class ids of the ground truth, in the order of CamVid."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN_SYMBOL = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10
    UNLABELLED = 11


# Of a patch: polygons of one colour and class, filled in one call (even-odd rule: overlaps stay empty). normal: of the
# visible side. glow: 0 for a surface that only reflects light, 1 for a lamp. opacity: below 1 for twigs and railings,
# whose labels cover the gaps, as in CamVid, while the image shows the background.
SURFACE = np.dtype(
    {
        "names": [
            "polygons",
            "vertices",
            "colour",
            "label",
            "normal",
            "two_sided",
            "glow",
            "opacity",
            "size_m",
        ],
        "formats": ["p", "p", "3f4", "u1", "3f4", "?", "f4", "f4", "f4"],
    }
)
Patch = tuple[NDArray[np.float32], tuple[Any, ...]]
"""Corners, (count, corners per polygon, 3), and a record of ``SURFACE``."""


class Solid:
    """Patches in painting order, flattened into arrays so that all solids of a frame are projected at once.

    low_detail: a simpler solid for distances above 40 m; by default this one. facing: -1 turns it around.
    vertices: (n, 3) float32, corners of all polygons. surfaces: a record of ``SURFACE`` per patch.
    """

    def __init__(self, patches: Sequence[Patch], low_detail: Solid | None = None, facing: int = 1) -> None:
        self.vertices = np.concatenate([corners.reshape(-1, 3) for corners, _ in patches])
        self.surfaces = np.array([surface for _, surface in patches], SURFACE)
        if facing < 0:
            turn = np.array([-1, 1, -1], dtype=np.float32)
            self.vertices *= turn
            self.surfaces["normal"] *= turn
        self.low: list[float] = self.vertices.min(axis=0).tolist()
        self.high: list[float] = self.vertices.max(axis=0).tolist()
        self.low_detail = low_detail or self


@dataclass(frozen=True)
class Wall:
    """A vertical plane through a point (x, s) on the ground, in a direction (x, s)."""

    origin: tuple[float, float]
    direction: tuple[float, float]
    normal: tuple[float, float, float]


class Sketch:
    """Collects patches of one class; a later patch covers an earlier one."""

    def __init__(self, label: StreetClass) -> None:
        self.label = label
        self.patches: list[Patch] = []

    def polygons(
        self,
        points: ArrayLike,
        colour: Colour,
        normal: Point | None = None,
        glow: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """One polygon, or several with the same number of corners: points (..., corners, 3). No normal: two-sided."""
        corners = np.asarray(points, dtype=np.float32)
        corners = corners.reshape(-1, *corners.shape[-2:])
        if len(corners):
            count, length, _ = corners.shape
            visible_from = (0, 0, -1) if normal is None else tuple(normal)
            size_m = np.ptp(corners[0], axis=0).max()
            shape = (count, count * length, colour, self.label, visible_from, normal is None)
            self.patches.append((corners, (*shape, glow, opacity, size_m)))

    def rectangles(
        self, wall: Wall, places: ArrayLike, colour: Colour, glow: float = 0.0, opacity: float = 1.0
    ) -> None:
        """Rectangles on a wall: places (..., 4), each (start, end) along the wall and (bottom, top) above ground."""
        a0, a1, h0, h1 = np.asarray(places, dtype=np.float32).reshape(-1, 4).T
        along, height = np.stack([a0, a1, a1, a0], axis=1), np.stack([h0, h0, h1, h1], axis=1)
        x, s = (wall.origin[i] + along * wall.direction[i] for i in (0, 1))
        self.polygons(np.stack([x, height, s], axis=2), colour, wall.normal, glow, opacity)

    def bar(self, start: Point, end: Point, width_m: float, colour: Colour) -> None:
        """A flat bar between two points that faces along the road, towards the camera."""
        self.polygons(bar(start, end, width_m), colour)

    def disc(
        self,
        x: float,
        y: float,
        radius_m: float,
        colour: Colour,
        corners: int = 10,
        s: float = 0.0,
        glow: float = 0.0,
    ) -> None:
        """A disc that faces along the road."""
        self.polygons(disc(x, y, s, radius_m, corners), colour, glow=glow)

    def box(self, low: Point, high: Point, colour: Colour) -> None:
        """A box without a bottom face."""
        (x0, y0, s0), (x1, y1, s1) = low, high
        for wall, length in (
            (Wall((x0, s1), (1, 0), (0, 0, 1)), x1 - x0),
            (Wall((x0, s0), (0, 1), (-1, 0, 0)), s1 - s0),
            (Wall((x1, s0), (0, 1), (1, 0, 0)), s1 - s0),
            (Wall((x0, s0), (1, 0), (0, 0, -1)), x1 - x0),
        ):
            self.rectangles(wall, [0, length, y0, y1], colour)
        self.polygons([(x0, y1, s0), (x1, y1, s0), (x1, y1, s1), (x0, y1, s1)], colour, (0, 1, 0))

    def strip(self, x0: float, x1: float, s0: float, s1: float, colour: Colour) -> None:
        """A strip on the ground, subdivided to follow a bend."""
        steps = np.linspace(s0, s1, max(2, int((s1 - s0) / 4) + 1))
        self.polygons([(x0, 0, s) for s in steps] + [(x1, 0, s) for s in steps[::-1]], colour, (0, 1, 0))


def bar(start: Point, end: Point, width_m: float) -> NDArray[np.float64]:
    """Corners (4, 3) of a bar between two points."""
    a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    across = np.array([b[1] - a[1], a[0] - b[0], 0.0])
    length = float(np.hypot(across[0], across[1]))
    half = np.array([0.0, width_m / 2, 0.0]) if length < 1e-6 else across * (width_m / 2 / length)
    return np.stack([a - half, a + half, b + half, b - half])


def disc(x: float, y: float, s: float, radius_m: float, corners: int = 10) -> NDArray[np.float64]:
    """Corners (corners, 3) of a disc that faces along the road."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([x + radius_m * np.cos(angle), y + radius_m * np.sin(angle), np.full(corners, s)], axis=1)


def wheel(x: float, y: float, s: float, radius_m: float) -> NDArray[np.float64]:
    """Corners (12, 3) of a disc that faces across the road."""
    return disc(s, y, x, radius_m, 12)[:, [2, 1, 0]]


def colours(codes: str) -> tuple[Colour, ...]:
    """Colours from hexadecimal codes RRGGBB, separated by spaces."""
    return tuple((int(code[4:], 16), int(code[2:4], 16), int(code[:2], 16)) for code in codes.split())


def shaded(colour: Colour, factor: float) -> Colour:
    """The colour scaled in brightness."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def pick(rng: np.random.Generator, choices: Sequence[Colour], spread: float = 0.15) -> Colour:
    """A random choice of the colours, randomly scaled in brightness."""
    return shaded(choices[int(rng.integers(len(choices)))], float(rng.uniform(1 - spread, 1 + spread)))


PAINTS = colours("822828 1e3860 224a2c 221e1e bea03c 969696 285a6e")
METAL, BLACK, WHITE = colours("5c5e5c 161616 dcdad7")
