# SPDX-License-Identifier: Apache-2.0
"""What things on a street look like. Each stands at the origin, or begins there and runs along the road.

side is -1 for things on the left and 1 on the right; x_front is how far from the centre line they stand, in metres.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from canet_ros.simulation.shapes import (
    Colour,
    Patch,
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
_PAINTS = colours("822828 1e3860 224a2c 221e1e bea03c 969696 285a6e")
_CAR_PAINTS = colours("989896 222426 bebcba 1e3c6e 821e22 605c5a 28303c 2c4a34 466e8c")
_CLOTHES = colours("202022 24385a 782828 7a7878 46423c 6e502c aaa5a0 325a46")
_TROUSERS = _CLOTHES[:5]
_SKINS = colours("cda082 a5785a 694832")
_LEAVES = colours("4e6234 5c7a3e 726c40 46542e")
_BARK, _METAL, _BLACK, _GLASS, _RED, _WHITE, _BLUE = colours(
    "3c342c 5c5e5c 161616 282e34 b92428 dcdad7 144696"
)


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
        _roof(shell, rng, side, (x_front, length_m, height, depth), colour)
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
            panes.rectangles(wall, [at, at + 1.0, 0, 2.2], pick(rng, _PAINTS))
    plain = Solid([*shell.patches, *panes.patches])
    return Solid([*shell.patches, *panes.patches, *trim.patches], plain)


def _roof(
    shell: Sketch,
    rng: np.random.Generator,
    side: int,
    sizes_m: tuple[float, float, float, float],
    colour: Colour,
) -> None:
    x_front, length, height, depth = sizes_m
    rise = depth / 2 * float(rng.uniform(0.6, 0.95))
    eave, ridge, top, low = side * (x_front - 0.3), side * (x_front + depth / 2), height + rise, height - 0.25
    pitch = [(eave, height, 0), (eave, height, length), (ridge, top, length), (ridge, top, 0)]
    gable = [(side * x_front, height, 0), (ridge, top, 0), (side * (x_front + depth), height, 0)]
    shell.polygons(pitch, pick(rng, _SLATES), (-side * rise, depth / 2, 0))
    shell.polygons(gable, shaded(colour, 0.9), (0, 0, -1))
    gutter = Wall((eave, 0.0), (0, 1), (-side, 0, 0))
    shell.rectangles(gutter, [0, length, low, height], shaded(colour, 1.25))
    for s in rng.uniform(0.5, length - 1.2, int(rng.integers(0, 3))):
        shell.box((ridge - 0.4, top - 0.8, s), (ridge + 0.4, top + 1.3, s + 0.7), shaded(colour, 0.8))


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
    paint = pick(rng, _PAINTS, 0.3)
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
    sketch.rectangles(wall, goods, pick(rng, _PAINTS, 0.4), glow=0.15)
    sketch.rectangles(wall, [0, width, floor_m - 0.65, floor_m], paint)
    sketch.rectangles(wall, letters, _WHITE)


def tree(rng: np.random.Generator, height_m: float, bare: bool) -> Solid:
    """A tree, in leaf or bare as in winter."""
    trunk_m = height_m * float(rng.uniform(0.22, 0.34))
    crown_m = height_m - trunk_m
    radius, middle = height_m * float(rng.uniform(0.24, 0.36)), trunk_m + crown_m / 2
    # A few overlapping lumps give the crown an outline that is neither a circle nor a ball.
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
            _leaves(sketch, rng, at, (radius, crown_m), leaf, count, size_m)
    return Solid(near.patches, Solid(far.patches))


def _leaves(
    sketch: Sketch,
    rng: np.random.Generator,
    lumps: NDArray[np.float64],
    crown_m: tuple[float, float],
    leaf: Colour,
    count: int,
    size_m: float,
) -> None:
    for factor, lift in ((0.45, -0.06), (1.0, 0.02), (0.6, 0.0), (1.45, 0.08)):
        lump, angle = lumps[rng.integers(6, size=count)], rng.uniform(0, 2 * np.pi, count)
        reach = np.sqrt(rng.random(count)) * 0.62
        x = lump[:, 0] + np.cos(angle) * reach * crown_m[0]
        y = lump[:, 1] + np.sin(angle) * reach * crown_m[1] * 0.5 + lift * crown_m[1]
        size = size_m * rng.uniform(0.6, 1.4, (count, 1))
        turn = rng.uniform(0, np.pi, (count, 1)) + np.arange(4) * np.pi / 2
        spots = [x[:, None] + size * np.cos(turn), y[:, None] + 0.7 * size * np.sin(turn), 0 * turn]
        sketch.polygons(np.stack(spots, axis=2), shaded(leaf, factor))


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
            for share in (0.35, 0.6):
                spread = rng.normal(0, 0.2, 3) * radius * [1, 1, 0]
                thin.append(bar(root + (tip - root) * share, tip + spread, 0.025))
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
    # The back is seen across side streets and gardens.
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
    sketch.bar((0, 0, 0), (0, 1.2, 0), 0.26, _METAL)
    sketch.bar((0, 0, 0), (0, height_m, 0), 0.17, _METAL)
    sketch.bar((0, height_m, 0), (arm, height_m + 0.25, 0), 0.11, _METAL)
    sketch.bar((arm * 0.75, height_m + 0.2, 0), (arm * 1.25, height_m + 0.28, 0), 0.22, _METAL)
    return Solid(sketch.patches)


def bollard() -> Solid:
    """A short post at the kerb."""
    sketch = Sketch(StreetClass.POLE)
    sketch.bar((0, 0, 0), (0, 1.0, 0), 0.16, _BLACK)
    sketch.bar((0, 0.78, 0), (0, 0.9, 0), 0.16, _WHITE)
    return Solid(sketch.patches)


def sign_post(rng: np.random.Generator) -> Solid:
    """A road sign on its pole: red ring, warning triangle, blue disc, or a board."""
    y = float(rng.uniform(2.3, 2.7))
    pole, sign = Sketch(StreetClass.POLE), Sketch(StreetClass.SIGN_SYMBOL)
    pole.bar((0, 0, 0), (0, y, 0), 0.1, _METAL)
    kind = str(rng.choice(["ring", "triangle", "disc", "board"]))
    if kind == "ring":
        sign.disc(0, y, 0.38, _RED, 14)
        sign.disc(0, y, 0.28, _WHITE, 14)
        sign.bar((-0.1, y - 0.13, 0), (-0.1, y + 0.13, 0), 0.1, _BLACK)
        sign.bar((0.1, y - 0.13, 0), (0.1, y + 0.13, 0), 0.1, _BLACK)
    elif kind == "triangle":
        for size, colour in ((0.5, _RED), (0.33, _WHITE)):
            sign.polygons([(-size, y - size * 0.6, 0), (size, y - size * 0.6, 0), (0, y + size, 0)], colour)
        sign.bar((0, y - 0.12, 0), (0, y + 0.12, 0), 0.08, _BLACK)
    elif kind == "disc":
        sign.disc(0, y, 0.38, _BLUE, 14)
        sign.bar((0.14, y + 0.16, 0), (-0.14, y - 0.16, 0), 0.1, _WHITE)
    else:
        sign.bar((0, y - 0.45, 0), (0, y + 0.45, 0), 1.25, _WHITE)
        sign.bar((0, y - 0.4, 0), (0, y + 0.4, 0), 1.15, pick(rng, colours("144696 1e823c dcb428")))
        for line in (0.2, 0.0, -0.2):
            sign.bar((-0.4, y + line, 0), (0.25, y + line, 0), 0.1, _WHITE)
    return Solid([*pole.patches, *sign.patches])


def traffic_light(rng: np.random.Generator) -> Solid:
    """A traffic light on its pole."""
    pole, box = Sketch(StreetClass.POLE), Sketch(StreetClass.SIGN_SYMBOL)
    pole.bar((0, 0, 0), (0, 3.4, 0), 0.13, _METAL)
    box.bar((0, 2.3, 0), (0, 3.55, 0), 0.62, _WHITE)
    box.bar((0, 2.33, 0), (0, 3.52, 0), 0.54, _BLACK)
    lit = int(rng.choice([0, 0, 1, 2, 2]))
    for place, colour in enumerate(colours("fa2828 faaa28 3cfaaa")):
        on = place == lit
        box.disc(0, 3.28 - 0.36 * place, 0.14, colour if on else shaded(colour, 0.18), glow=float(on))
    return Solid([*pole.patches, *box.patches])


def bin_box(rng: np.random.Generator) -> Solid:
    """A waste bin or a post box: nothing that CamVid's eleven classes name."""
    colour = pick(rng, colours("961e1e 1e3c28 2c2828"))
    sketch = Sketch(StreetClass.UNLABELLED)
    sketch.box((-0.28, 0, -0.28), (0.28, 1.15, 0.28), colour)
    sketch.box((-0.31, 1.15, -0.31), (0.31, 1.28, 0.31), shaded(colour, 0.6))
    return Solid(sketch.patches)


# Outlines of cars seen from the side, rear to front, as (along, height) in metres; corners 2..5 are the cabin.
_SALOON = [
    (-2.1, 0.35),
    (-2.1, 0.92),
    (-1.6, 1.0),
    (-1.05, 1.42),
    (0.25, 1.42),
    (1.0, 0.96),
    (1.95, 0.78),
    (2.1, 0.38),
]
_HATCH = [
    (-1.9, 0.35),
    (-1.93, 0.95),
    (-1.8, 1.02),
    (-1.45, 1.46),
    (0.3, 1.46),
    (0.98, 1.0),
    (1.75, 0.82),
    (1.9, 0.38),
]
_TALL = [
    (-2.2, 0.4),
    (-2.25, 1.1),
    (-2.2, 1.16),
    (-2.0, 1.8),
    (0.3, 1.82),
    (1.05, 1.15),
    (2.05, 0.98),
    (2.2, 0.42),
]
_VAN = [
    (-2.6, 0.4),
    (-2.62, 1.2),
    (-2.6, 1.3),
    (-2.55, 2.3),
    (1.1, 2.35),
    (2.0, 1.3),
    (2.5, 1.05),
    (2.6, 0.45),
]


def car(rng: np.random.Generator, facing: int) -> Solid:
    """A car. facing: 1 when it drives away from the camera, -1 when it comes towards it."""
    kind = int(rng.choice(4, p=[0.34, 0.4, 0.18, 0.08]))
    outline, van = np.array((_SALOON, _HATCH, _TALL, _VAN)[kind]), kind == 3
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
            sketch.polygons(wheel(side * half, 0.34, along, 0.34), _BLACK, normal)
            sketch.polygons(wheel(side * half, 0.34, along, 0.19), _METAL, normal)
    _car_ends(sketch, outline, half)
    return Solid(_facing(sketch.patches, facing))


def _car_ends(sketch: Sketch, outline: NDArray[np.float64], half: float) -> None:
    low, width = float(outline[0, 1]), 2 * half
    rear = Wall((-half, float(outline[0, 0]) - 0.04), (1, 0), (0, 0, -1))
    front = Wall((-half, float(outline[-1, 0]) + 0.02), (1, 0), (0, 0, 1))
    lamps, plates = colours("c81e24 e6e6e1"), colours("d7be3c d7d7d7")
    for wall, lamp, plate, y in zip(
        (rear, front), lamps, plates, (float(outline[1, 1]) - 0.3, 0.6), strict=True
    ):
        sketch.rectangles(
            wall, [(0.05, 0.28, 0, low + 0.05), (width - 0.28, width - 0.05, 0, low + 0.05)], _BLACK
        )
        sketch.rectangles(wall, [0.02, width - 0.02, low - 0.12, low + 0.12], (34, 34, 34))
        sketch.rectangles(
            wall, [(0.04, 0.32, y, y + 0.2), (width - 0.32, width - 0.04, y, y + 0.2)], lamp, glow=0.35
        )
        if wall is front:
            sketch.rectangles(wall, [0.45, width - 0.45, 0.58, 0.74], _BLACK)
        sketch.rectangles(wall, [half - 0.27, half + 0.27, low + 0.06, low + 0.18], plate)


def _facing(patches: list[Patch], facing: int) -> list[Patch]:
    if facing > 0:
        return patches
    turn = np.array([-1, 1, -1], dtype=np.float32)
    return [
        Patch(
            p.corners * turn,
            p.colour,
            p.label,
            None if p.normal is None else np.multiply(p.normal, turn),
            p.glow,
            p.opacity,
        )
        for p in patches
    ]


def pedestrian(rng: np.random.Generator, phase: float) -> Solid:
    """Somebody walking. phase: where in a stride, 0..1."""
    coat, trousers, skin = pick(rng, _CLOTHES, 0.3), pick(rng, _TROUSERS, 0.2), pick(rng, _SKINS, 0.1)
    tall = float(rng.uniform(0.9, 1.08))
    swing = 0.13 * float(np.sin(2 * np.pi * phase))
    hip, shoulder = 0.88 * tall, 1.45 * tall
    sketch = Sketch(StreetClass.PEDESTRIAN)
    for sign in (-1, 1):
        foot, knee = sign * (0.07 + swing), sign * (0.08 + 0.4 * swing)
        sketch.bar((0.09 * sign, hip, 0), (knee, 0.47 * tall, 0), 0.17, trousers)
        sketch.bar((knee, 0.47 * tall, 0), (foot, 0.05, 0), 0.13, trousers)
        sketch.bar((foot, 0.05, 0), (foot + 0.1, 0.03, 0), 0.08, _BLACK)
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
    """Somebody on a bicycle. phase: turn of the pedals, 0..1. facing: as for a car."""
    coat, trousers = pick(rng, (*colours("d7c832 a02828"), *_CLOTHES), 0.2), pick(rng, _TROUSERS, 0.2)
    skin, paint = pick(rng, _SKINS, 0.1), pick(rng, _PAINTS, 0.3)
    bicycle, rider = Sketch(StreetClass.BICYCLIST), Sketch(StreetClass.BICYCLIST)
    for s in (0.55, -0.5):
        bicycle.bar((0, 0, s), (0, 0.68, s), 0.07, _BLACK)
        outer, inner = wheel(0, 0.34, s, 0.34), wheel(0, 0.34, s, 0.28)
        rim = [(outer[i], outer[i - 1], inner[i - 1], inner[i]) for i in range(12)]
        bicycle.polygons(rim, _BLACK)
    bicycle.bar((0, 0.34, -0.5), (0, 0.9, -0.2), 0.05, paint)
    bicycle.bar((0, 0.34, 0.55), (0, 0.98, 0.42), 0.05, paint)
    bicycle.bar((0, 0.85, -0.2), (0, 0.9, 0.42), 0.05, paint)
    bicycle.bar((-0.28, 1.02, 0.42), (0.28, 1.02, 0.42), 0.05, _BLACK)
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
    rider.disc(0, 1.69, 0.13, pick(rng, _PAINTS, 0.4), s=0.1)
    # Whatever is nearer to the camera comes last.
    order = (bicycle, rider) if facing > 0 else (rider, bicycle)
    return Solid(_facing([*order[0].patches, *order[1].patches], facing))
