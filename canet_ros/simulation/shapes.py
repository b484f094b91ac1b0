# SPDX-License-Identifier: Apache-2.0
"""What things on a street look like: solids made of flat coloured polygons.

Points are (x, y, s) in metres: x to the right of the road's centre line, y up, s forward along the road.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[float, float, float]
"""Blue, green, red, each 0..255, as seen in full light."""

GLASS: Colour = (52, 46, 40)
BLACK: Colour = (22, 22, 22)
METAL: Colour = (92, 94, 92)


class StreetClass(IntEnum):
    """Class ids of the truth: those of CamVid."""

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


@dataclass(frozen=True)
class Patch:
    """Polygons of one colour and class that are painted together.

    corners: (count, corners per polygon, 3) float32. normal: the side that is seen, or None for both sides.
    glow: 0 for a surface that only reflects light, 1 for a lamp.
    """

    corners: NDArray[np.float32]
    colour: Colour
    label: StreetClass
    normal: tuple[float, float, float] | None = None
    glow: float = 0.0


class Solid:
    """Patches in painting order, flattened into arrays so that a frame is projected in one go."""

    def __init__(self, patches: Iterable[Patch], casts_shadow: bool = True) -> None:
        kept = [patch for patch in patches if len(patch.corners)]
        self.vertices = np.concatenate([patch.corners.reshape(-1, 3) for patch in kept])
        self.polygon_counts = np.array([patch.corners.shape[0] for patch in kept])
        self.vertex_counts = np.array([patch.corners.shape[0] * patch.corners.shape[1] for patch in kept])
        self.colours = np.array([patch.colour for patch in kept], dtype=np.float32)
        self.labels = np.array([patch.label for patch in kept], dtype=np.uint8)
        self.normals = np.array([patch.normal or (0.0, 0.0, -1.0) for patch in kept], dtype=np.float32)
        self.two_sided = np.array([patch.normal is None for patch in kept])
        self.glows = np.array([patch.glow for patch in kept], dtype=np.float32)
        self.sizes_m = np.array([np.ptp(patch.corners[0], axis=0).max() for patch in kept], dtype=np.float32)
        self.low = self.vertices.min(axis=0)
        self.high = self.vertices.max(axis=0)
        self.casts_shadow = casts_shadow


@dataclass(frozen=True)
class Wall:
    """A vertical rectangle to draw on: rectangles (along, height) in metres become polygons in space."""

    origin: tuple[float, float]
    direction: tuple[float, float]
    normal: tuple[float, float, float]

    def patch(self, rectangles: ArrayLike, colour: Colour, label: StreetClass, glow: float = 0.0) -> Patch:
        """rectangles: (n, 4) as along start, along end, height start, height end."""
        a0, a1, h0, h1 = np.asarray(rectangles, dtype=np.float32).reshape(-1, 4).T
        along = np.stack([a0, a1, a1, a0], axis=1)
        height = np.stack([h0, h0, h1, h1], axis=1)
        x = self.origin[0] + along * self.direction[0]
        s = self.origin[1] + along * self.direction[1]
        return Patch(np.stack([x, height, s], axis=2).astype(np.float32), colour, label, self.normal, glow)


def polygon(
    points: ArrayLike,
    colour: Colour,
    label: StreetClass,
    normal: tuple[float, float, float] | None = None,
    glow: float = 0.0,
) -> Patch:
    """One polygon, or several with the same number of corners, from (..., corners, 3) points."""
    corners = np.asarray(points, dtype=np.float32)
    return Patch(corners.reshape(-1, *corners.shape[-2:]), colour, label, normal, glow)


def flat(x0: float, x1: float, s0: float, s1: float, colour: Colour, label: StreetClass, y: float = 0.0) -> Patch:
    """A strip lying on the ground, cut often enough to follow a bend."""
    steps = np.linspace(s0, s1, max(2, int((s1 - s0) / 4) + 1))
    points = [(x0, y, s) for s in steps] + [(x1, y, s) for s in steps[::-1]]
    return polygon(points, colour, label, (0, 1, 0))


def limb(start: Sequence[float], end: Sequence[float], width_m: float) -> NDArray[np.float64]:
    """A bar between two points as a quad (4, 3) that faces along the road, where the camera is."""
    a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    across = np.array([b[1] - a[1], a[0] - b[0], 0.0])
    length = float(np.linalg.norm(across))
    half = np.array([0.0, width_m / 2, 0.0]) if length < 1e-6 else across / length * width_m / 2
    return np.stack([a - half, a + half, b + half, b - half])


def disc(x: float, y: float, s: float, radius_m: float, corners: int = 10, width: float = 1.0) -> NDArray[np.float64]:
    """A disc (corners, 3) that faces along the road; width 0.5 makes it half as wide as high."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([x + width * radius_m * np.cos(angle), y + radius_m * np.sin(angle), np.full(corners, s)], axis=1)


def wheel(x: float, y: float, s: float, radius_m: float) -> NDArray[np.float64]:
    """A disc (12, 3) that stands along the road."""
    return disc(s, y, x, radius_m, 12)[:, [2, 1, 0]]


def box(x0: float, x1: float, y0: float, y1: float, s0: float, s1: float, colour: Colour, label: StreetClass) -> list[Patch]:
    """The visible faces of a box: all but its bottom."""
    front = Wall((x0, s0), (1, 0), (0, 0, -1)).patch([[0, x1 - x0, y0, y1]], colour, label)
    back = Wall((x0, s1), (1, 0), (0, 0, 1)).patch([[0, x1 - x0, y0, y1]], colour, label)
    left = Wall((x0, s0), (0, 1), (-1, 0, 0)).patch([[0, s1 - s0, y0, y1]], colour, label)
    right = Wall((x1, s0), (0, 1), (1, 0, 0)).patch([[0, s1 - s0, y0, y1]], colour, label)
    top = polygon([(x0, y1, s0), (x1, y1, s0), (x1, y1, s1), (x0, y1, s1)], colour, label, (0, 1, 0))
    return [back, left, right, top, front]


def shaded(colour: Colour, factor: float) -> Colour:
    """The colour made lighter or darker."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def _pick(rng: np.random.Generator, choices: Sequence[Colour], spread: float = 0.15) -> Colour:
    return shaded(choices[int(rng.integers(len(choices)))], float(rng.uniform(1 - spread, 1 + spread)))


# ---------------------------------------------------------------- buildings

_BRICKS: tuple[Colour, ...] = (
    (58, 70, 112),
    (70, 88, 128),
    (110, 140, 160),
    (96, 118, 138),
    (185, 196, 200),
    (150, 180, 196),
    (128, 132, 134),
    (84, 84, 90),
    (46, 54, 78),
)
_PAINTS: tuple[Colour, ...] = (
    (40, 40, 130),
    (96, 56, 30),
    (44, 74, 34),
    (30, 30, 34),
    (60, 160, 190),
    (150, 150, 150),
    (110, 90, 40),
)


def building(rng: np.random.Generator, side: int, x_front: float, length_m: float, floors: int, style: str) -> Solid:
    """A building from s = 0 to length_m whose front stands x_front from the centre line.

    side: -1 on the left, 1 on the right. style: "shop", "house" or "office".
    """
    label = StreetClass.BUILDING
    wall_colour = _pick(rng, _BRICKS)
    floor_m = float(rng.uniform(2.7, 3.3)) if style != "office" else 3.5
    height = floors * floor_m + 0.4
    depth = float(rng.uniform(8, 13))
    front = Wall((side * x_front, 0.0), (0, 1), (-side, 0, 0))
    end = Wall((side * x_front, 0.0), (side, 0), (0, 0, -1))
    patches = [
        front.patch([[0, length_m, 0, height]], wall_colour, label),
        end.patch([[0, depth, 0, height]], shaded(wall_colour, 0.9), label),
    ]
    if style == "office":
        band = shaded(wall_colour, float(rng.uniform(0.6, 1.3)))
        patches.append(front.patch([[0, length_m, height - 0.7, height]], band, label))
    else:
        patches += _roof(rng, side, x_front, length_m, height, depth, wall_colour)
    patches += _windows(rng, front, length_m, floors, floor_m, style)
    patches += _windows(rng, end, depth, floors, floor_m, "house" if style != "office" else style, doors=False)
    return Solid(patches)


def _roof(
    rng: np.random.Generator, side: int, x_front: float, length_m: float, height: float, depth: float, wall: Colour
) -> list[Patch]:
    label = StreetClass.BUILDING
    slate = _pick(rng, ((70, 66, 62), (48, 60, 96), (58, 58, 60)))
    rise = depth / 2 * float(rng.uniform(0.6, 0.95))
    eave, ridge = side * (x_front - 0.3), side * (x_front + depth / 2)
    top = height + rise
    slope = (-side * rise, depth / 2, 0.0)
    pitch = [(eave, height, 0), (eave, height, length_m), (ridge, top, length_m), (ridge, top, 0)]
    gable = [(side * x_front, height, 0), (ridge, top, 0), (side * (x_front + depth), height, 0)]
    gutter = [(eave, height - 0.25, 0), (eave, height - 0.25, length_m), (eave, height, length_m), (eave, height, 0)]
    patches = [
        polygon(pitch, slate, label, slope),
        polygon(gable, shaded(wall, 0.9), label, (0, 0, -1)),
        polygon(gutter, shaded(wall, 1.25), label, (-side, 0, 0)),
    ]
    for s in rng.uniform(0.5, length_m - 1.2, int(rng.integers(0, 3))):
        x0 = ridge - 0.4
        patches += box(x0, x0 + 0.8, top - 0.8, top + 1.3, s, s + 0.7, shaded(wall, 0.8), label)
    return patches


def _windows(
    rng: np.random.Generator, wall: Wall, width: float, floors: int, floor_m: float, style: str, doors: bool = True
) -> list[Patch]:
    label = StreetClass.BUILDING
    pitch = 1.9 if style == "office" else float(rng.uniform(2.2, 3.2))
    columns = max(1, int(width / pitch))
    share = 0.8 if style == "office" else float(rng.uniform(0.36, 0.52))
    centre = (np.arange(columns) + 0.5) * width / columns
    half = share * width / columns / 2
    first = 1 if style == "shop" and doors else 0
    sill = np.arange(first, floors) * floor_m + 0.9
    a, h = (grid.ravel() for grid in np.meshgrid(centre, sill))
    window_m = floor_m * (0.5 if style == "office" else 0.52)
    glass = np.stack([a - half, a + half, h, h + window_m], axis=1)
    lit = rng.random(len(glass)) < 0.25
    frame_colour = _pick(rng, ((190, 195, 195), (70, 75, 80), (205, 205, 200)))
    patches = [
        wall.patch(glass + [-0.12, 0.12, -0.15, 0.1], frame_colour, label),
        wall.patch(glass[~lit], GLASS, label, 0.05),
        wall.patch(glass[lit], (96, 100, 98), label, 0.12),
    ]
    if style != "office":
        middle = h + window_m / 2
        bars = np.stack([a - half, a + half, middle - 0.04, middle + 0.04], axis=1)
        posts = np.stack([a - 0.03, a + 0.03, h, h + window_m], axis=1)
        patches += [wall.patch(bars, frame_colour, label), wall.patch(posts, frame_colour, label)]
    if doors and style == "shop":
        patches += _shop_front(rng, wall, width, floor_m)
    elif doors:
        at = float(rng.uniform(0.2, max(0.3, width - 1.5)))
        patches.append(wall.patch([[at - 0.15, at + 1.15, 0, 2.4]], frame_colour, label))
        patches.append(wall.patch([[at, at + 1.0, 0, 2.2]], _pick(rng, _PAINTS), label))
    return patches


def _shop_front(rng: np.random.Generator, wall: Wall, width: float, floor_m: float) -> list[Patch]:
    label = StreetClass.BUILDING
    paint = _pick(rng, _PAINTS, 0.3)
    panes = max(2, int(width / 2.0))
    edge = np.linspace(0.25, width - 0.25, panes + 1)
    glass = np.stack([edge[:-1] + 0.1, edge[1:] - 0.1, np.full(panes, 0.6), np.full(panes, floor_m - 0.75)], axis=1)
    door = int(rng.integers(panes))
    glass[door, 2] = 0.05
    goods = glass[rng.random(panes) < 0.6] * [1, 1, 1, 0.55] + [0.2, -0.2, 0.1, 0]
    letters = np.arange(0.2 * width, 0.75 * width, 0.42)
    sign = np.stack([letters, letters + 0.26, letters * 0 + floor_m - 0.5, letters * 0 + floor_m - 0.2], axis=1)
    patches = [
        wall.patch([[0, width, 0, floor_m - 0.05]], shaded(paint, 0.8), label),
        wall.patch(glass, GLASS, label, 0.15),
        wall.patch(goods, _pick(rng, _PAINTS, 0.4), label, 0.15),
        wall.patch([[0, width, floor_m - 0.65, floor_m]], paint, label),
        wall.patch(sign, (190, 205, 210), label),
    ]
    return patches


# ---------------------------------------------------------------- plants and fences


def tree(rng: np.random.Generator, height_m: float, bare: bool, sky: Colour) -> Solid:
    """A tree at the origin. bare: a winter crown, where much of the sky shows between the twigs.

    The whole crown is TREE, gaps too, as in CamVid.
    """
    label = StreetClass.TREE
    bark: Colour = (44, 52, 60)
    trunk_m = height_m * float(rng.uniform(0.22, 0.34))
    radius = height_m * float(rng.uniform(0.24, 0.36))
    trunk = np.array([(-0.2, 0, 0), (0.2, 0, 0), (0.09, height_m * 0.6, 0), (-0.09, height_m * 0.6, 0)])
    trunk = trunk * [height_m / 8, 1, 1]
    middle = trunk_m + (height_m - trunk_m) / 2
    reach = (height_m - trunk_m) / 2
    leaf = _pick(rng, ((34, 66, 50), (40, 84, 62), (40, 74, 78), (28, 52, 44)), 0.2)
    base = (0.58 * sky[0] + 12, 0.58 * sky[1] + 18, 0.58 * sky[2] + 22) if bare else shaded(leaf, 0.7)
    # A few overlapping lumps give the crown an outline that is neither a circle nor a ball.
    at = rng.normal(0, 1, (6, 2)) * [radius * 0.36, reach * 0.3]
    lumps = [
        _ragged(rng, x, middle + y, rng.uniform(0.5, 0.72) * radius, rng.uniform(0.5, 0.68) * reach) for x, y in at
    ]
    patches = [polygon(trunk, bark, label), polygon(lumps[0], base, label)]
    patches += [polygon(lump, base, label) for lump in lumps[1:]]
    patches.append(polygon(trunk, bark, label))

    def speckle(count: int, size_m: float, colour: Colour, lift: float) -> Patch:
        lump = rng.integers(6, size=count)
        angle, far = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count)) * 0.55
        x = at[lump, 0] + np.cos(angle) * far * radius
        y = middle + at[lump, 1] + np.sin(angle) * far * reach + lift
        spots = [disc(a, b, 0, size_m * rng.uniform(0.6, 1.4), 5) for a, b in zip(x, y, strict=True)]
        return polygon(np.stack(spots), colour, label)

    if bare:
        patches.append(speckle(60, 0.28, sky, 0.0))
        tips = [(rng.normal(0, 0.55) * radius, trunk_m + rng.uniform(0.4, 1.0) * (height_m - trunk_m)) for _ in range(26)]
        roots = [trunk_m * 0.9 + 0.55 * (y - trunk_m) * rng.uniform(0.2, 1.0) for _, y in tips]
        bars = [limb((0, root, 0), (x, y, 0), 0.13) for (x, y), root in zip(tips, roots, strict=True)]
        patches += [polygon(bar, bark, label) for bar in bars]
    else:
        patches.append(speckle(46, 0.42, shaded(leaf, 0.45), -0.1 * reach))
        patches.append(speckle(46, 0.38, leaf, 0.05 * reach))
        patches.append(speckle(34, 0.3, shaded(leaf, 1.5), 0.16 * reach))
    return Solid(patches)


def _ragged(rng: np.random.Generator, x: float, y: float, width_m: float, height_m: float) -> NDArray[np.float64]:
    angle = np.arange(18) * (2 * np.pi / 18)
    reach = rng.uniform(0.78, 1.16, 18)
    return np.stack([x + width_m * reach * np.cos(angle), y + height_m * reach * np.sin(angle), 0 * angle], axis=1)


def hedge(rng: np.random.Generator, side: int, x_front: float, length_m: float, height_m: float) -> Solid:
    """A hedge along the road from s = 0 to length_m."""
    label = StreetClass.TREE
    leaf = _pick(rng, ((36, 70, 48), (34, 62, 60), (44, 80, 70)), 0.2)
    x0, x1 = sorted((side * x_front, side * (x_front + 0.9)))
    patches = box(x0, x1, 0, height_m, 0, length_m, shaded(leaf, 0.75), label)
    top = np.linspace(0, length_m, max(3, int(length_m / 0.5)))
    fringe = [(side * x_front, 0.0, 0.0)] + [(side * x_front, height_m + rng.uniform(0, 0.22), s) for s in top]
    patches.append(polygon(fringe + [(side * x_front, 0.0, length_m)], shaded(leaf, 0.75), label))
    for factor in (0.5, 1.1, 1.45):
        count = int(length_m * 5)
        spots = [
            wheel(side * x_front, y, s, rng.uniform(0.05, 0.12))[::2]
            for y, s in zip(rng.uniform(0.1, height_m, count), rng.uniform(0.1, length_m - 0.1, count), strict=True)
        ]
        patches.append(polygon(np.stack(spots), shaded(leaf, factor), label, (-side, 0, 0)))
    return Solid(patches)


def fence(rng: np.random.Generator, side: int, x_front: float, length_m: float) -> Solid:
    """A fence along the road from s = 0 to length_m: boards, or railings in front of a darker ground.

    All of it is FENCE, the gaps between railings too, as in CamVid.
    """
    label = StreetClass.FENCE
    boards = rng.random() < 0.5
    height = float(rng.uniform(1.5, 1.9)) if boards else float(rng.uniform(1.0, 1.5))
    colour = _pick(rng, ((66, 92, 120), (58, 76, 92), (80, 96, 104))) if boards else (46.0, 52.0, 50.0)
    wall = Wall((side * x_front, 0.0), (0, 1), (-side, 0, 0))
    bars = np.arange(0.1, length_m - 0.05, 0.16)
    rects = np.stack([bars, bars + (0.03 if boards else 0.06), bars * 0 + 0.05, bars * 0 + height], axis=1)
    posts = np.arange(0, length_m, 2.4)
    post_rects = np.stack([posts, posts + 0.12, posts * 0, posts * 0 + height + 0.1], axis=1)
    dark = shaded(colour, 0.45)
    rails = [[0, length_m, height * 0.92, height], [0, length_m, 0.1, 0.2]]
    patches = [
        wall.patch([[0, length_m, 0, height]], colour if boards else shaded(colour, 1.6), label),
        wall.patch(rects, dark, label),
        wall.patch(rails, shaded(colour, 1.2) if boards else dark, label),
        wall.patch(post_rects, shaded(colour, 1.3) if boards else dark, label),
    ]
    # The back is seen across side streets and gardens.
    back = Wall((side * (x_front + 0.05), 0.0), (0, 1), (side, 0, 0))
    return Solid([back.patch([[0, length_m, 0, height]], shaded(colour, 0.8), label), *patches])


# ---------------------------------------------------------------- poles, signs, lights


def lamp_post(side: int, height_m: float) -> Solid:
    """A lamp post at the origin whose arm reaches over the road."""
    label = StreetClass.POLE
    arm = -side * 1.5
    post = polygon(limb((0, 0, 0), (0, height_m, 0), 0.17), METAL, label)
    foot = polygon(limb((0, 0, 0), (0, 1.2, 0), 0.26), METAL, label)
    top = polygon(limb((0, height_m, 0), (arm, height_m + 0.25, 0), 0.11), METAL, label)
    head = polygon(limb((arm * 0.75, height_m + 0.2, 0), (arm * 1.25, height_m + 0.28, 0), 0.22), METAL, label)
    return Solid([foot, post, top, head])


def bollard() -> Solid:
    """A short post at the kerb."""
    post = polygon(limb((0, 0, 0), (0, 1.0, 0), 0.16), BLACK, StreetClass.POLE)
    band = polygon(limb((0, 0.78, 0), (0, 0.9, 0), 0.165), (190, 195, 200), StreetClass.POLE)
    return Solid([post, band])


def sign_post(rng: np.random.Generator) -> Solid:
    """A road sign on its pole: a disc, a triangle, or a board."""
    label = StreetClass.SIGN_SYMBOL
    red: Colour = (40, 36, 185)
    white: Colour = (215, 218, 220)
    blue: Colour = (150, 70, 20)
    height = float(rng.uniform(2.3, 2.7))
    patches = [polygon(limb((0, 0, 0), (0, height, 0), 0.1), METAL, StreetClass.POLE)]
    kind = int(rng.integers(4))
    if kind == 0:
        patches += [polygon(disc(0, height, 0, 0.38, 14), red, label), polygon(disc(0, height, 0, 0.28, 14), white, label)]
        patches.append(polygon([limb((x, height - 0.13, 0), (x, height + 0.13, 0), 0.1) for x in (-0.1, 0.1)], BLACK, label))
    elif kind == 1:
        for size, colour in ((0.5, red), (0.33, white)):
            corners = [(-size, height - size * 0.6, 0), (size, height - size * 0.6, 0), (0, height + size, 0)]
            patches.append(polygon(corners, colour, label))
        patches.append(polygon(limb((0, height - 0.12, 0), (0, height + 0.12, 0), 0.08), BLACK, label))
    elif kind == 2:
        patches.append(polygon(disc(0, height, 0, 0.38, 14), blue, label))
        patches.append(polygon(limb((0.14, height + 0.16, 0), (-0.14, height - 0.16, 0), 0.1), white, label))
    else:
        colour = _pick(rng, (blue, (60, 130, 30), (40, 180, 220)))
        patches.append(polygon(limb((0, height - 0.45, 0), (0, height + 0.45, 0), 1.25), white, label))
        patches.append(polygon(limb((0, height - 0.4, 0), (0, height + 0.4, 0), 1.15), colour, label))
        rows = [limb((-0.4, height + y, 0), (0.25, height + y, 0), 0.1) for y in (0.2, 0.0, -0.2)]
        patches.append(polygon(rows, white, label))
    return Solid(patches)


def traffic_light(rng: np.random.Generator) -> Solid:
    """A traffic light on its pole: the box is SIGN_SYMBOL, the post is POLE."""
    label = StreetClass.SIGN_SYMBOL
    post = polygon(limb((0, 0, 0), (0, 3.4, 0), 0.13), METAL, StreetClass.POLE)
    edge = polygon(limb((0, 2.3, 0), (0, 3.55, 0), 0.62), (200, 205, 205), label)
    case = polygon(limb((0, 2.33, 0), (0, 3.52, 0), 0.54), BLACK, label)
    lit = int(rng.choice([0, 0, 2, 2, 1]))
    lamps = []
    for place, colour in enumerate(((40, 40, 250), (40, 170, 250), (170, 250, 60))):
        bright: Colour = colour if place == lit else shaded(colour, 0.18)
        glow = 1.0 if place == lit else 0.0
        lamps.append(polygon(disc(0, 3.28 - 0.36 * place, 0, 0.14, 10), bright, label, None, glow))
    return Solid([post, edge, case, *lamps])


def bin_box(rng: np.random.Generator) -> Solid:
    """A waste bin or a post box: nothing that CamVid's eleven classes name."""
    colour = _pick(rng, ((30, 30, 150), (40, 60, 30), (40, 40, 44)))
    body = box(-0.28, 0.28, 0, 1.15, -0.28, 0.28, colour, StreetClass.UNLABELLED)
    lid = box(-0.31, 0.31, 1.15, 1.28, -0.31, 0.31, shaded(colour, 0.6), StreetClass.UNLABELLED)
    return Solid([*body, *lid])


# ---------------------------------------------------------------- traffic and people

_CAR_PAINTS: tuple[Colour, ...] = (
    (150, 152, 152),
    (38, 36, 34),
    (186, 188, 190),
    (110, 60, 30),
    (34, 30, 130),
    (90, 92, 96),
    (60, 48, 40),
    (52, 74, 44),
    (140, 110, 70),
)
# Outline of a car seen from its left side, rear to front: (along, height) in metres; the cabin is 2..5.
_SALOON = [(-2.1, 0.35), (-2.1, 0.92), (-1.6, 1.0), (-1.05, 1.42), (0.25, 1.42), (1.0, 0.96), (1.95, 0.78), (2.1, 0.38)]
_HATCH = [(-1.9, 0.35), (-1.93, 0.95), (-1.8, 1.02), (-1.45, 1.46), (0.3, 1.46), (0.98, 1.0), (1.75, 0.82), (1.9, 0.38)]
_TALL = [(-2.2, 0.4), (-2.25, 1.1), (-2.2, 1.16), (-2.0, 1.8), (0.3, 1.82), (1.05, 1.15), (2.05, 0.98), (2.2, 0.42)]
_VAN = [(-2.6, 0.4), (-2.62, 1.2), (-2.6, 1.3), (-2.55, 2.3), (1.1, 2.35), (2.0, 1.3), (2.5, 1.05), (2.6, 0.45)]


def car(rng: np.random.Generator, facing: int) -> Solid:
    """A car at the origin. facing: 1 when it drives away from the camera, -1 when it comes towards it."""
    label = StreetClass.CAR
    kind = int(rng.choice(4, p=[0.34, 0.4, 0.18, 0.08]))
    outline = np.array((_SALOON, _HATCH, _TALL, _VAN)[kind])
    paint = _pick(rng, _CAR_PAINTS)
    half = 0.85 if kind < 2 else 0.95
    inset = 0.17

    def across(index: int) -> float:
        return half - inset if index in (3, 4) else half

    def strip(first: int, shrink: float = 0.0) -> NDArray[np.float64]:
        (a0, h0), (a1, h1) = outline[first], outline[first + 1]
        w0, w1 = across(first), across(first + 1)
        quad = np.array([(-w0, h0, a0), (w0, h0, a0), (w1, h1, a1), (-w1, h1, a1)])
        centre = quad.mean(axis=0)
        return np.asarray(centre + (quad - centre) * (1 - shrink))

    def up_or_out(first: int) -> tuple[float, float, float]:
        (a0, h0), (a1, h1) = outline[first], outline[first + 1]
        return (0.0, float(a1 - a0) + 1e-3, float(h0 - h1))

    patches = [polygon(strip(i), paint, label, up_or_out(i)) for i in (0, 1, 2, 3, 4, 5, 6)]
    glass: Colour = (70, 62, 54)
    patches += [polygon(strip(i, 0.12), glass, label, up_or_out(i), 0.05) for i in (2, 4) if not (kind == 3 and i == 2)]
    for side in (-1, 1):
        normal = (float(side), 0.0, 0.0)
        lower = [(side * half, h, a) for a, h in outline[[0, 1, 2, 5, 6, 7]]]
        cabin = [(side * across(i), outline[i, 1], outline[i, 0]) for i in (2, 3, 4, 5)]
        patches += [polygon(lower, paint, label, normal), polygon(cabin, shaded(paint, 0.9), label, normal)]
        centre = np.mean(cabin, axis=0)
        pane = centre + (np.array(cabin) - centre) * [1, 0.7, 0.84]
        if kind != 3:
            patches.append(polygon(pane, glass, label, normal, 0.03))
            pillar = [(side * (half - 0.1), 1.02, -0.4), (side * (half - inset), outline[3, 1], -0.35)]
            patches.append(polygon(limb(pillar[0], pillar[1], 0.1), paint, label, normal))
        for a in (outline[0, 0] + 0.75, outline[-1, 0] - 0.8):
            for size, colour in ((0.38, BLACK), (0.31, BLACK), (0.2, METAL)):
                patches.append(polygon(wheel(side * half, 0.31, a, size), colour, label, normal))
    patches += _car_ends(outline, half, label)
    if facing < 0:
        patches = [_turned(patch) for patch in patches]
    return Solid(patches)


def _car_ends(outline: NDArray[np.float64], half: float, label: StreetClass) -> list[Patch]:
    rear, front = float(outline[0, 0]) - 0.04, float(outline[-1, 0]) + 0.02
    low, top = float(outline[0, 1]), float(outline[1, 1])
    patches = []
    for s, normal, lamp, plate in (
        (rear, (0.0, 0.0, -1.0), (36, 30, 200), (60, 190, 215)),
        (front, (0.0, 0.0, 1.0), (225, 230, 230), (215, 215, 215)),
    ):
        wall = Wall((-half, s), (1, 0), normal)
        wide = 2 * half
        tyres = [[0.05, 0.28, 0.0, low + 0.05], [wide - 0.28, wide - 0.05, 0.0, low + 0.05]]
        level = top - 0.3 if s == rear else 0.6
        lamps = [[0.04, 0.32, level, level + 0.2], [wide - 0.32, wide - 0.04, level, level + 0.2]]
        middle = half
        patches += [
            wall.patch(tyres, BLACK, label),
            wall.patch([[0.02, wide - 0.02, low - 0.12, low + 0.12]], (34, 34, 34), label),
            wall.patch(lamps, lamp, label, 0.35),
            wall.patch([[middle - 0.27, middle + 0.27, low + 0.16, low + 0.29]], plate, label),
        ]
    return patches


def _turned(patch: Patch) -> Patch:
    normal = patch.normal and (-patch.normal[0], patch.normal[1], -patch.normal[2])
    turned = patch.corners * np.array([-1, 1, -1], dtype=np.float32)
    return Patch(turned, patch.colour, patch.label, normal, patch.glow)


_CLOTHES: tuple[Colour, ...] = (
    (34, 32, 32),
    (90, 56, 36),
    (40, 40, 120),
    (120, 120, 122),
    (60, 66, 70),
    (44, 80, 110),
    (160, 165, 170),
    (70, 90, 50),
)
_SKIN: tuple[Colour, ...] = ((130, 160, 205), (90, 120, 165), (50, 72, 105))


def pedestrian(rng: np.random.Generator, phase: float) -> Solid:
    """A walker at the origin. phase: where in a stride, 0..1."""
    label = StreetClass.PEDESTRIAN
    coat, trousers = _pick(rng, _CLOTHES, 0.3), _pick(rng, _CLOTHES[:5], 0.2)
    skin = _pick(rng, _SKIN, 0.1)
    tall = float(rng.uniform(0.9, 1.08))
    swing = 0.2 * np.sin(2 * np.pi * phase)
    hip, shoulder = 0.88 * tall, 1.45 * tall
    patches = []
    for sign in (-1, 1):
        foot, knee = (0.08 * sign + sign * swing, 0.05, 0), (0.09 * sign + 0.6 * sign * swing, 0.47 * tall, 0)
        patches.append(polygon(limb((0.09 * sign, hip, 0), knee, 0.17), trousers, label))
        patches.append(polygon(limb(knee, foot, 0.13), trousers, label))
        patches.append(polygon(limb(foot, (foot[0] + 0.1, 0.03, 0), 0.08), BLACK, label))
    torso = [(-0.17, hip - 0.1, 0), (0.17, hip - 0.1, 0), (0.23, shoulder - 0.06, 0), (0.1, shoulder + 0.04, 0)]
    patches.append(polygon([*torso, (-0.1, shoulder + 0.04, 0), (-0.23, shoulder - 0.06, 0)], coat, label))
    for sign in (-1, 1):
        hand = (0.28 * sign - 0.7 * sign * swing, hip - 0.05, 0)
        patches.append(polygon(limb((0.22 * sign, shoulder - 0.05, 0), hand, 0.11), shaded(coat, 0.8), label))
        patches.append(polygon(disc(hand[0], hand[1], 0, 0.05, 6), skin, label))
    patches.append(polygon(disc(0, shoulder + 0.17, 0, 0.13, 10, 0.82), skin, label))
    hair = disc(0, shoulder + 0.21, 0, 0.125, 10, 0.9)
    patches.append(polygon(hair, _pick(rng, ((30, 34, 40), (60, 90, 120), (26, 26, 28))), label))
    return Solid(patches)


def cyclist(rng: np.random.Generator, phase: float, facing: int) -> Solid:
    """A rider on a bicycle at the origin; all of it is BICYCLIST. phase: turn of the pedals, 0..1."""
    label = StreetClass.BICYCLIST
    coat, trousers = _pick(rng, ((50, 200, 215), (40, 40, 160), *_CLOTHES), 0.2), _pick(rng, _CLOTHES[:5], 0.2)
    skin = _pick(rng, _SKIN, 0.1)
    angle = 2 * np.pi * phase
    paint = _pick(rng, _PAINTS, 0.3)
    tyre = [polygon(limb((0, 0.0, a), (0, 0.68, a), 0.07), BLACK, label) for a in (0.55, -0.5)]
    frame = [((0, 0.34, -0.5), (0, 0.9, -0.2)), ((0, 0.34, 0.55), (0, 0.98, 0.42)), ((0, 0.85, -0.2), (0, 0.9, 0.42))]
    rims = []
    for a in (0.55, -0.5):
        outer, inner = wheel(0, 0.34, a, 0.34), wheel(0, 0.34, a, 0.28)
        rims += [np.stack([outer[i], outer[i - 1], inner[i - 1], inner[i]]) for i in range(12)]
    patches = [*tyre, polygon(np.stack(rims), BLACK, label)]
    patches += [polygon(limb(a, b, 0.05), paint, label) for a, b in frame]
    patches.append(polygon(limb((-0.28, 1.02, 0.42), (0.28, 1.02, 0.42), 0.05), BLACK, label))
    for sign in (-1, 1):
        foot = (0.13 * sign, 0.34 + 0.17 * sign * np.sin(angle), 0.1 + 0.17 * sign * np.cos(angle))
        knee = (0.16 * sign, 0.72 + 0.1 * sign * np.sin(angle), 0.25)
        patches.append(polygon(limb(knee, foot, 0.12), trousers, label))
        patches.append(polygon(limb((0.1 * sign, 0.98, -0.2), knee, 0.16), trousers, label))
        patches.append(polygon(limb((0.2 * sign, 1.42, 0.05), (0.26 * sign, 1.05, 0.4), 0.1), coat, label))
    torso = [(-0.16, 0.92, -0.2), (0.16, 0.92, -0.2), (0.23, 1.4, 0.02), (0.1, 1.52, 0.05), (-0.1, 1.52, 0.05)]
    patches.append(polygon([*torso, (-0.23, 1.4, 0.02)], coat, label))
    patches.append(polygon(disc(0, 1.62, 0.1, 0.13, 10, 0.85), skin, label))
    helmet = disc(0, 1.68, 0.1, 0.14, 10)
    patches.append(polygon(helmet, _pick(rng, _PAINTS, 0.4), label))
    if facing < 0:
        patches = [_turned(patch) for patch in patches[::-1]]
        patches = [*patches[2:], *patches[1::-1]]
    return Solid(patches)
