# SPDX-License-Identifier: Apache-2.0
"""Solids of buildings, plants and street furniture, at the origin or from there along the road.

side: -1 for the left, 1 for the right. x_front: distance from the centre line in metres.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from canet_ros.simulation.shapes import (
    BLACK,
    METAL,
    PAINTS,
    WHITE,
    Colour,
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

_BRICKS = colours("70463a 805846 a08c6e 8a7660 c8c4b9 c4b496 868480 5a5454 4e362e")
_SLATES = colours("3e4246 603c30 3a3a3c")
_FRAMES = colours("c3c3be 504b46 c8cdcd")
_LEAVES = colours("4e6234 5c7a3e 726c40 46542e")
_BARK, _GLASS, _RED, _BLUE = colours("3c342c 282e34 b92428 144696")


def building(
    rng: np.random.Generator, side: int, x_front: float, length_m: float, floors: int, style: str
) -> Solid:
    """A "shop", "house" or "office" along the road."""
    colour = pick(rng, _BRICKS)
    office = style == "office"
    floor_m = 3.5 if office else float(rng.uniform(2.7, 3.3))
    height, depth = floors * floor_m + 0.4, float(rng.uniform(8, 13))
    front = Wall((side * x_front, 0.0), (0, 1), (-side, 0, 0))
    end = Wall((side * x_front, 0.0), (side, 0), (0, 0, -1))
    shell = Sketch(StreetClass.BUILDING)
    shell.rectangles(front, [0, length_m, 0, height], colour)
    shell.rectangles(end, [0, depth, 0, height], shaded(colour, 0.9))
    if office:
        shell.rectangles(
            front, [0, length_m, height - 0.7, height], shaded(colour, float(rng.uniform(0.6, 1.3)))
        )
    else:
        rise = depth / 2 * float(rng.uniform(0.6, 0.95))
        eave, ridge, top = side * (x_front - 0.3), side * (x_front + depth / 2), height + rise
        pitch = [(eave, height, 0), (eave, height, length_m), (ridge, top, length_m), (ridge, top, 0)]
        gable = [(side * x_front, height, 0), (ridge, top, 0), (side * (x_front + depth), height, 0)]
        shell.polygons(pitch, pick(rng, _SLATES), (-side * rise, depth / 2, 0))
        shell.polygons(gable, shaded(colour, 0.9), (0, 0, -1))
        gutter = Wall((eave, 0.0), (0, 1), (-side, 0, 0))
        shell.rectangles(gutter, [0, length_m, height - 0.25, height], shaded(colour, 1.25))
        for s in rng.uniform(0.5, length_m - 1.2, int(rng.integers(0, 3))):  # chimneys
            shell.box((ridge - 0.4, top - 0.8, s), (ridge + 0.4, top + 1.3, s + 0.7), shaded(colour, 0.8))
    panes, trim = Sketch(StreetClass.BUILDING), Sketch(StreetClass.BUILDING)
    for wall, width in ((end, depth), (front, length_m)):
        shop = style == "shop" and wall is front
        frame = pick(rng, _FRAMES)
        _windows(panes, trim, rng, wall, (width, floor_m), range(1 if shop else 0, floors), office, frame)
        if shop:
            _shop_front(panes, rng, wall, width, floor_m)
        elif wall is front:
            at = float(rng.uniform(0.2, max(0.3, width - 1.5)))
            panes.rectangles(wall, [at - 0.15, at + 1.15, 0, 2.4], frame)
            panes.rectangles(wall, [at, at + 1.0, 0, 2.2], pick(rng, PAINTS))
    low_detail = Solid([*shell.patches, *panes.patches])
    return Solid([*shell.patches, *panes.patches, *trim.patches], low_detail)


def _windows(
    panes: Sketch,
    trim: Sketch,
    rng: np.random.Generator,
    wall: Wall,
    sizes_m: tuple[float, float],
    floors: range,
    office: bool,
    frame: Colour,
) -> None:
    width, floor_m = sizes_m
    columns = max(1, int(width / (1.9 if office else rng.uniform(2.2, 3.2))))
    half = width / columns / 2 * (0.8 if office else float(rng.uniform(0.36, 0.52)))
    centre = (np.arange(columns) + 0.5) * width / columns
    a, h = (grid.ravel() for grid in np.meshgrid(centre, np.array(floors) * floor_m + 0.9))
    top = h + 0.52 * floor_m
    glass = np.stack([a - half, a + half, h, top], axis=1)
    curtained = rng.random(len(glass)) < 0.25
    panes.rectangles(wall, np.add(glass, [-0.12, 0.12, -0.15, 0.1]), frame)
    panes.rectangles(wall, glass[~curtained], _GLASS, glow=0.05)
    panes.rectangles(wall, glass[curtained], (96, 100, 98), glow=0.12)
    if not office:
        middle = (h + top) / 2
        trim.rectangles(wall, np.stack([a - half, a + half, middle - 0.04, middle + 0.04], axis=1), frame)
        trim.rectangles(wall, np.stack([a - 0.03, a + 0.03, h, top], axis=1), frame)


def _shop_front(sketch: Sketch, rng: np.random.Generator, wall: Wall, width: float, floor_m: float) -> None:
    paint = pick(rng, PAINTS, 0.3)
    count = max(2, int(width / 2.0))
    edge = np.linspace(0.25, width - 0.25, count + 1)
    pane = np.array([(a + 0.1, b - 0.1, 0.6, floor_m - 0.75) for a, b in pairwise(edge)])
    pane[int(rng.integers(count)), 2] = 0.05
    goods = pane[rng.random(count) < 0.6] * [1, 1, 1, 0.55] + [0.2, -0.2, 0.1, 0]
    letters = [
        (a, a + 0.26, floor_m - 0.5, floor_m - 0.2) for a in np.arange(0.2 * width, 0.75 * width, 0.42)
    ]
    sketch.rectangles(wall, [0, width, 0, floor_m - 0.05], shaded(paint, 0.8))
    sketch.rectangles(wall, pane, _GLASS, glow=0.15)
    sketch.rectangles(wall, goods, pick(rng, PAINTS, 0.4), glow=0.15)
    sketch.rectangles(wall, [0, width, floor_m - 0.65, floor_m], paint)
    sketch.rectangles(wall, letters, WHITE)


def tree(rng: np.random.Generator, height_m: float, bare: bool) -> Solid:
    """A tree, in leaf or bare as in winter."""
    trunk_m = height_m * float(rng.uniform(0.22, 0.34))
    crown_m = height_m - trunk_m
    radius, middle = height_m * float(rng.uniform(0.24, 0.36)), trunk_m + crown_m / 2
    # Overlapping lumps give the crown an irregular outline.
    at = rng.normal(0, 1, (6, 2)) * [radius * 0.36, crown_m * 0.15] + [0, middle]
    angle = np.arange(18) * (2 * np.pi / 18)
    reach = rng.uniform(0.78, 1.16, (6, 18)) * rng.uniform(0.5, 0.7, (6, 1))
    x, y = at[:, :1] + radius * reach * np.cos(angle), at[:, 1:] + crown_m / 2 * reach * np.sin(angle)
    lumps = np.stack([x, y, np.zeros_like(x)], axis=2)
    trunk = [(-0.025, 0, 0), (0.025, 0, 0), (0.012, 0.6, 0), (-0.012, 0.6, 0)] * np.array(
        [height_m, height_m, 1]
    )
    near, far = Sketch(StreetClass.TREE), Sketch(StreetClass.TREE)
    if bare:
        for sketch, opacity in ((near, 0.2), (far, 0.45)):
            sketch.polygons(lumps, (76, 86, 96), opacity=opacity)
            sketch.polygons(trunk, _BARK)
            _boughs(sketch, rng, at, radius, trunk_m, twigs=sketch is near)
    else:
        leaf = pick(rng, _LEAVES, 0.2)
        for sketch, count, size_m in ((near, 140, 0.027 * height_m), (far, 22, 0.06 * height_m)):
            sketch.polygons(trunk, _BARK)
            for lump in lumps:
                sketch.polygons(lump, shaded(leaf, 0.7))
            for factor, lift in ((0.45, -0.06), (1.0, 0.02), (0.6, 0.0), (1.45, 0.08)):
                lump, angle = at[rng.integers(6, size=count)], rng.uniform(0, 2 * np.pi, count)
                spread = np.sqrt(rng.random(count)) * 0.62
                x = lump[:, 0] + np.cos(angle) * spread * radius
                y = lump[:, 1] + np.sin(angle) * spread * crown_m * 0.5 + lift * crown_m
                size = size_m * rng.uniform(0.6, 1.4, (count, 1))
                turn = rng.uniform(0, np.pi, (count, 1)) + np.arange(4) * np.pi / 2
                spots = [x[:, None] + size * np.cos(turn), y[:, None] + 0.7 * size * np.sin(turn), 0 * turn]
                sketch.polygons(np.stack(spots, axis=2), shaded(leaf, factor))
    return Solid(near.patches, Solid(far.patches))


def _boughs(
    sketch: Sketch,
    rng: np.random.Generator,
    lumps: NDArray[np.float64],
    radius: float,
    trunk_m: float,
    twigs: bool,
) -> None:
    thin = []
    for x, y in lumps:
        fork, end = np.array([0.45 * x, trunk_m + 0.35 * (y - trunk_m), 0.0]), np.array([x, y, 0.0])
        sketch.bar((0, 0.85 * trunk_m, 0), fork, 0.15, _BARK)
        sketch.bar(fork, end, 0.08, _BARK)
        for angle in rng.uniform(-0.6, np.pi + 0.6, 10):
            root = fork + (end - fork) * rng.uniform(0.3, 1.0)
            tip = end + radius * float(rng.uniform(0.4, 0.75)) * np.array([np.cos(angle), np.sin(angle), 0.0])
            thin.append(bar(root, tip, 0.04))
            for fraction in (0.35, 0.6):
                spread = rng.normal(0, 0.2, 3) * radius * [1, 1, 0]
                thin.append(bar(root + (tip - root) * fraction, tip + spread, 0.025))
    for part in range(4 if twigs else 1):
        sketch.polygons(np.stack(thin[part::4]), shaded(_BARK, 0.9))


def hedge(rng: np.random.Generator, side: int, x_front: float, length_m: float, height_m: float) -> Solid:
    """A hedge along the road."""
    leaf, x = pick(rng, _LEAVES[:2], 0.25), side * x_front
    x0, x1 = sorted((x, side * (x_front + 0.9)))
    sketch = Sketch(StreetClass.TREE)
    sketch.box((x0, 0, 0), (x1, height_m, length_m), shaded(leaf, 0.75))
    fringe = [
        (x, height_m + rng.uniform(0, 0.22), s) for s in np.linspace(0, length_m, max(3, int(length_m / 0.5)))
    ]
    sketch.polygons([(x, 0, 0), *fringe, (x, 0, length_m)], shaded(leaf, 0.75))
    count = int(length_m * 5)
    for factor in (0.5, 1.1, 1.45):
        places = rng.uniform([0.1, 0.1, 0.05], [height_m, length_m - 0.1, 0.12], (count, 3))
        spots = [wheel(x, y, s, radius)[::2] for y, s, radius in places]
        sketch.polygons(np.stack(spots), shaded(leaf, factor), (-side, 0, 0))
    return Solid(sketch.patches)


def fence(rng: np.random.Generator, side: int, x_front: float, length_m: float) -> Solid:
    """A fence along the road: boards or railings."""
    boards = rng.random() < 0.5
    height = float(rng.uniform(1.5, 1.9) if boards else rng.uniform(1.0, 1.5))
    colour = pick(rng, colours("785c42 5c4c3a 686050")) if boards else (46.0, 52.0, 50.0)
    dark = shaded(colour, 0.45)
    front = Wall((side * x_front, 0.0), (0, 1), (-side, 0, 0))
    # The back is visible across side streets and gardens.
    back = Wall((side * (x_front + 0.05), 0.0), (0, 1), (side, 0, 0))
    bars = [(a, a + (0.03 if boards else 0.06), 0.05, height) for a in np.arange(0.1, length_m - 0.05, 0.16)]
    sketch = Sketch(StreetClass.FENCE)
    for wall in (back, front):
        sketch.rectangles(wall, [0, length_m, 0, height], colour, opacity=1.0 if boards else 0.35)
    sketch.rectangles(front, bars, dark)
    rails = [(0, length_m, height * 0.92, height), (0, length_m, 0.1, 0.2)]
    sketch.rectangles(front, rails, shaded(colour, 1.2) if boards else dark)
    posts = [(a, a + 0.12, 0, height + 0.1) for a in np.arange(0, length_m, 2.4)]
    sketch.rectangles(front, posts, shaded(colour, 1.3) if boards else dark)
    return Solid(sketch.patches)


def lamp_post(side: int, height_m: float) -> Solid:
    """A lamp post whose arm reaches over the road."""
    arm = -side * 1.5
    sketch = Sketch(StreetClass.POLE)
    sketch.bar((0, 0, 0), (0, 1.2, 0), 0.26, METAL)
    sketch.bar((0, 0, 0), (0, height_m, 0), 0.17, METAL)
    sketch.bar((0, height_m, 0), (arm, height_m + 0.25, 0), 0.11, METAL)
    sketch.bar((arm * 0.75, height_m + 0.2, 0), (arm * 1.25, height_m + 0.28, 0), 0.22, METAL)
    return Solid(sketch.patches)


def bollard() -> Solid:
    """A short post at the kerb."""
    sketch = Sketch(StreetClass.POLE)
    sketch.bar((0, 0, 0), (0, 1.0, 0), 0.16, BLACK)
    sketch.bar((0, 0.78, 0), (0, 0.9, 0), 0.16, WHITE)
    return Solid(sketch.patches)


def sign_post(rng: np.random.Generator) -> Solid:
    """A road sign on its pole: red ring, warning triangle, blue disc, or a board."""
    y = float(rng.uniform(2.3, 2.7))
    pole, sign = Sketch(StreetClass.POLE), Sketch(StreetClass.SIGN_SYMBOL)
    pole.bar((0, 0, 0), (0, y, 0), 0.1, METAL)
    kind = str(rng.choice(["ring", "triangle", "disc", "board"]))
    if kind == "ring":
        sign.disc(0, y, 0.38, _RED, 14)
        sign.disc(0, y, 0.28, WHITE, 14)
        sign.bar((-0.1, y - 0.13, 0), (-0.1, y + 0.13, 0), 0.1, BLACK)
        sign.bar((0.1, y - 0.13, 0), (0.1, y + 0.13, 0), 0.1, BLACK)
    elif kind == "triangle":
        for size, colour in ((0.5, _RED), (0.33, WHITE)):
            sign.polygons([(-size, y - size * 0.6, 0), (size, y - size * 0.6, 0), (0, y + size, 0)], colour)
        sign.bar((0, y - 0.12, 0), (0, y + 0.12, 0), 0.08, BLACK)
    elif kind == "disc":
        sign.disc(0, y, 0.38, _BLUE, 14)
        sign.bar((0.14, y + 0.16, 0), (-0.14, y - 0.16, 0), 0.1, WHITE)
    else:
        sign.bar((0, y - 0.45, 0), (0, y + 0.45, 0), 1.25, WHITE)
        sign.bar((0, y - 0.4, 0), (0, y + 0.4, 0), 1.15, pick(rng, colours("144696 1e823c dcb428")))
        for line in (0.2, 0.0, -0.2):
            sign.bar((-0.4, y + line, 0), (0.25, y + line, 0), 0.1, WHITE)
    return Solid([*pole.patches, *sign.patches])


def traffic_light(rng: np.random.Generator) -> Solid:
    """A traffic light on its pole."""
    pole, box = Sketch(StreetClass.POLE), Sketch(StreetClass.SIGN_SYMBOL)
    pole.bar((0, 0, 0), (0, 3.4, 0), 0.13, METAL)
    box.bar((0, 2.3, 0), (0, 3.55, 0), 0.62, WHITE)
    box.bar((0, 2.33, 0), (0, 3.52, 0), 0.54, BLACK)
    lit = int(rng.choice([0, 0, 1, 2, 2]))
    for place, colour in enumerate(colours("fa2828 faaa28 3cfaaa")):
        on = place == lit
        box.disc(0, 3.28 - 0.36 * place, 0.14, colour if on else shaded(colour, 0.18), glow=float(on))
    return Solid([*pole.patches, *box.patches])


def bin_box(rng: np.random.Generator) -> Solid:
    """A waste bin or a post box: unlabelled in CamVid's eleven classes."""
    colour = pick(rng, colours("961e1e 1e3c28 2c2828"))
    sketch = Sketch(StreetClass.UNLABELLED)
    sketch.box((-0.28, 0, -0.28), (0.28, 1.15, 0.28), colour)
    sketch.box((-0.31, 1.15, -0.31), (0.31, 1.28, 0.31), shaded(colour, 0.6))
    return Solid(sketch.patches)
