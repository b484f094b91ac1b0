# SPDX-License-Identifier: Apache-2.0
"""Layout of an endless street, and positions of its traffic over time.

Traffic keeps left unless the camera mirrors the scene. side: -1 for the left, 1 for the right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from canet_ros.simulation import road_users, scenery
from canet_ros.simulation.shapes import Colour, Sketch, Solid, StreetClass, shaded

BLOCK_M = 60.0
SIDE_STREET_M = 11.0
VIEW_M = 190.0
LANE_M = 3.2
# Road users are taken from this many variants of each kind, because building one for each frame takes too long.
VARIANTS = 60
STRIDE_PHASES = 8
_MARK: Colour = (205, 208, 208)
_YELLOW: Colour = (70, 170, 200)


@dataclass(frozen=True)
class Placed:
    """A solid at (x, s) on the road, in metres."""

    solid: Solid
    x: float
    s: float


@dataclass(frozen=True)
class TrafficStream:
    """An endless row of road users of one kind. skip_first: the first place belongs to the camera's car."""

    kind: str
    x: float
    speed_m_s: float
    spacing_m: float
    skip_first: bool = False


@dataclass(frozen=True)
class Street:
    """Street of one drive, derived from its seed.

    lanes: in each direction. parking: parking bays on the left, on the right. bend_m, bend_length_m, bend_phase:
    amplitude, period and phase of the centre line, which is a sine.
    """

    seed: int
    lanes: int
    camera_lane: int
    speed_m_s: float
    parking: tuple[bool, bool]
    pavement_m: float
    bend_m: float
    bend_length_m: float
    bend_phase: float
    parked_fraction: float
    walker_spacing_m: float
    urban_fraction: float
    floors: int
    bare_trees: bool
    tarmac: Colour
    paving: Colour
    yellow_lines: bool

    @property
    def camera_x_m(self) -> float:
        """Lateral position of the camera: the middle of its lane."""
        return -LANE_M * (self.camera_lane + 0.5)

    @property
    def carriageway_m(self) -> float:
        """Distance from the centre line to the parking bays, or to the kerb without parking bays."""
        return self.lanes * LANE_M + 0.9

    def edge_m(self, side: int) -> float:
        """Distance from the centre line to the kerb."""
        return self.carriageway_m + 2.2 * self.parks(side)

    def parks(self, side: int) -> bool:
        """Whether a side has parking bays."""
        return self.parking[side > 0]


def make_street(seed: int) -> Street:
    """Street of a seed (0 or more)."""
    rng = np.random.default_rng([seed, 1])
    lanes = int(rng.choice([1, 1, 1, 2]))
    grey = float(rng.uniform(78, 112))
    return Street(
        seed=seed,
        lanes=lanes,
        camera_lane=int(rng.integers(lanes)),
        speed_m_s=float(rng.uniform(5, 11)),
        parking=(bool(rng.random() < 0.4), bool(rng.random() < 0.45)),
        pavement_m=float(rng.uniform(2.2, 3.8)),
        bend_m=0.0 if rng.random() < 0.4 else float(rng.uniform(1.5, 7)),
        bend_length_m=float(rng.uniform(240, 340)),
        bend_phase=float(rng.uniform(0, 2 * np.pi)),
        parked_fraction=float(rng.uniform(0.3, 0.9)),
        walker_spacing_m=float(rng.uniform(7, 30)),
        urban_fraction=float(rng.choice([0.1, 0.5, 0.9, 1.0])),
        floors=int(rng.integers(2, 5)),
        bare_trees=bool(rng.random() < 0.5),
        tarmac=(grey * 1.02, grey, grey * 0.97),
        paving=shaded((112, 116, 120), float(rng.uniform(0.8, 1.25))),
        yellow_lines=bool(rng.random() < 0.4),
    )


def _streams(street: Street) -> Iterator[TrafficStream]:
    rng = np.random.default_rng([street.seed, 6])
    for lane in range(street.lanes):
        x, own = LANE_M * (lane + 0.5), lane == street.camera_lane
        oncoming_m_s = -street.speed_m_s * float(rng.uniform(0.8, 1.1))
        yield TrafficStream("oncoming car", x, oncoming_m_s, float(rng.uniform(16, 60)))
        speed_m_s = street.speed_m_s * (1.0 if own else float(rng.uniform(0.85, 1.15)))
        yield TrafficStream("car", -x, speed_m_s, float(rng.uniform(18, 60)), skip_first=own)
    x = street.carriageway_m - 0.55
    yield TrafficStream("cyclist", -x, float(rng.uniform(3.5, 4.8)), float(rng.uniform(22, 45)))
    yield TrafficStream("oncoming cyclist", x, -float(rng.uniform(3.5, 5)), float(rng.uniform(30, 70)))
    for side in (-1, 1):
        for fraction, speed_m_s in ((0.4, 1.3), (0.75, -1.2)):
            spacing_m = street.walker_spacing_m * float(rng.uniform(0.8, 1.4))
            x = side * (street.edge_m(side) + fraction * street.pavement_m)
            yield TrafficStream("pedestrian", x, speed_m_s, spacing_m)


def moving_objects(street: Street, time_s: float) -> Iterator[Placed]:
    """Road users within view of the camera at a time."""
    camera_s = street.speed_m_s * time_s
    for number, stream in enumerate(_streams(street)):
        shift = stream.speed_m_s * time_s
        first = int(np.floor((camera_s - 8 - shift) / stream.spacing_m))
        last = int(np.ceil((camera_s + VIEW_M - shift) / stream.spacing_m))
        for index in range(max(first, 1) if stream.skip_first else first, last + 1):
            jitter, sideways, variant = _traits(street.seed, number, index)
            s = (index + jitter) * stream.spacing_m + shift
            phase = int(STRIDE_PHASES * (1.1 * time_s + 3 * jitter)) % STRIDE_PHASES
            x = stream.x + sideways * (0.35 if stream.kind == "pedestrian" else 0.15)
            yield Placed(_road_user(variant, stream.kind, 0 if stream.kind.endswith("car") else phase), x, s)


def _seeded(*name: int) -> np.random.Generator:
    # NumPy requires seeds of 0 or more; positions behind the start have negative indices.
    return np.random.default_rng([2 * abs(part) + (part < 0) for part in name])


@lru_cache(maxsize=8192)
def _traits(seed: int, stream: int, index: int) -> tuple[float, float, int]:
    """Offsets along and across the stream, and the variant."""
    rng = _seeded(seed, 7, stream, index)
    return float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-1, 1)), int(rng.integers(VARIANTS))


@lru_cache(maxsize=4 * VARIANTS * STRIDE_PHASES)
def _road_user(variant: int, kind: str, phase: int) -> Solid:
    rng = _seeded(variant)
    facing = -1 if kind.startswith("oncoming") else 1
    if kind.endswith("car"):
        return road_users.car(rng, facing)
    if kind.endswith("cyclist"):
        return road_users.cyclist(rng, phase / STRIDE_PHASES, facing)
    return road_users.pedestrian(rng, phase / STRIDE_PHASES)


@dataclass(frozen=True)
class Block:
    """BLOCK_M metres of street: its ground and the static objects on it."""

    ground: Placed
    static: tuple[Placed, ...]


@lru_cache(maxsize=16)
def block(street: Street, index: int) -> Block:
    """Block of an index (any integer), from index * BLOCK_M on; deterministic."""
    rng = _seeded(street.seed, 2, index)
    start = index * BLOCK_M
    road, pavement = Sketch(StreetClass.ROAD), Sketch(StreetClass.PAVEMENT)
    side_road, side_pavement = Sketch(StreetClass.ROAD), Sketch(StreetClass.PAVEMENT)
    _lay_road(road, pavement, street)
    _paint_marks(road, rng, street)
    static: list[Placed] = []
    for side in (-1, 1):
        opening = rng.random() < 0.4
        length = BLOCK_M - SIDE_STREET_M * opening
        # An open plot in each block, alternating sides, so that every drive contains fences and trees.
        static += _frontage(rng, street, side, length, open_plot=(index % 2 == 0) == (side < 0))
        static += _furniture(rng, street, side, length)
        if opening:
            _lay_side_street(side_road, side_pavement, street, side, length)
            static += _crossing(rng, street, side, length)
    ground = Solid([*pavement.patches, *road.patches, *side_pavement.patches, *side_road.patches])
    moved = tuple(Placed(placed.solid, placed.x, placed.s + start) for placed in static)
    return Block(Placed(ground, 0.0, start), moved)


def _lay_road(road: Sketch, pavement: Sketch, street: Street) -> None:
    # Blocks overlap, so that no seam is visible.
    end = BLOCK_M + 0.3
    left, right, wide = -street.edge_m(-1), street.edge_m(1), street.pavement_m
    road.strip(left, right, 0, end, street.tarmac)
    pavement.strip(left - wide, left, 0, end, street.paving)
    pavement.strip(right, right + wide, 0, end, street.paving)
    kerb, gutter = shaded(street.paving, 1.25), shaded(street.tarmac, 0.72)
    for edge, side in ((left, -1), (right, 1)):
        pavement.strip(edge, edge + 0.16 * side, 0, end, kerb)
        road.strip(edge - 0.18 * side, edge, 0, end, gutter)


def _paint_marks(road: Sketch, rng: np.random.Generator, street: Street) -> None:
    # Patches of tarmac, zebra crossing, lane marks.
    low, high = [0.5 - street.edge_m(-1), 0, 0.5, 0.8], [street.edge_m(1) - 2, BLOCK_M - 8, 1.6, 8]
    for _ in range(int(rng.integers(1, 5))):
        x, s, wide, long = rng.uniform(low, high).tolist()
        road.strip(x, x + wide, s, s + long, shaded(street.tarmac, float(rng.choice([0.8, 0.88, 1.1]))))
    if rng.random() < 0.2:
        for x in np.arange(0.4 - street.edge_m(-1), street.edge_m(1) - 0.6, 1.1):
            road.strip(x, x + 0.55, 40, 43, _MARK)
    for lane in range(1 - street.lanes, street.lanes):
        for s in np.arange(0, BLOCK_M, 6):
            road.strip(lane * LANE_M - 0.06, lane * LANE_M + 0.06, s, s + (3.8 if lane == 0 else 2.0), _MARK)
    for side in (-1, 1):
        yellow = street.yellow_lines and not street.parks(side)
        for inset in (0.32, 0.55) if yellow else (0.0,) if street.parks(side) else (0.4,):
            x = side * (street.carriageway_m - inset)
            road.strip(x - 0.05, x + 0.05, 0, BLOCK_M, _YELLOW if yellow else _MARK)


def _lay_side_street(road: Sketch, pavement: Sketch, street: Street, side: int, s: float) -> None:
    edge = side * street.edge_m(side)
    pavement.strip(edge, side * 90, s, s + SIDE_STREET_M, street.paving)
    road.strip(edge - side * 0.2, side * 90, s + 1.8, s + SIDE_STREET_M - 1.8, street.tarmac)
    for dash in np.arange(2.2, SIDE_STREET_M - 2.4, 0.9):
        road.strip(edge + side * 0.1, edge + side * 0.3, s + dash, s + dash + 0.5, _MARK)


def _crossing(rng: np.random.Generator, street: Street, side: int, s: float) -> Iterator[Placed]:
    """Traffic lights at a side street, and a building that closes the view into it."""
    if rng.random() < 0.7:
        for across in (-1, 1):
            yield Placed(scenery.traffic_light(rng), across * (street.edge_m(across) + 0.45), s - 0.8)
    yield Placed(scenery.building(rng, side, 46, 34, int(rng.integers(2, 4)), "house"), 0, s - 6)
    for along in rng.choice([-4.0, 1.0, 11.0, 14.0], 3):
        x = side * float(rng.uniform(30, 44))
        yield Placed(scenery.tree(rng, float(rng.uniform(5, 9)), street.bare_trees), x, s + float(along))


def _frontage(
    rng: np.random.Generator, street: Street, side: int, length: float, open_plot: bool
) -> Iterator[Placed]:
    """Buildings and gardens, plot by plot."""
    front = street.edge_m(side) + street.pavement_m
    plot_at = float(rng.uniform(0, length - 20))
    urban = rng.random() < street.urban_fraction
    s = 0.0
    while length - s > 4:
        wide = float(rng.uniform(6, 11))
        here_open = open_plot and s >= plot_at
        office = not here_open and urban and rng.random() < 0.25
        wide = max(wide, 13.0 if here_open else 16.0 if office else 0.0)
        wide = length - s if length - s - wide < 4 else wide
        if here_open:
            open_plot = False
            yield from _garden(rng, side, front, s, wide, fenced=True)
            for along in np.arange(2.5, wide - 1, 4.5):
                crown = scenery.tree(rng, float(rng.uniform(5.5, 10)), street.bare_trees)
                yield Placed(crown, side * (front + float(rng.uniform(1.5, 4))), s + float(along))
        elif urban:
            floors = max(2, street.floors + int(rng.integers(0, 3) if office else rng.integers(-1, 2)))
            style = "office" if office else "shop" if rng.random() < 0.65 else "house"
            yield Placed(scenery.building(rng, side, front, wide, floors, style), 0, s)
        else:
            yield from _garden(rng, side, front, s, wide, fenced=bool(rng.random() < 0.4))
            back, gap = front + float(rng.uniform(4, 6.5)), float(rng.choice([0, 2]))
            yield Placed(scenery.building(rng, side, back, wide - gap, 2, "house"), 0, s)
            if rng.random() < 0.5:
                crown = scenery.tree(rng, float(rng.uniform(3.5, 7)), street.bare_trees)
                yield Placed(crown, side * (front + 2), s + wide * float(rng.uniform(0.1, 0.9)))
        s += wide


def _garden(
    rng: np.random.Generator, side: int, front: float, s: float, length: float, fenced: bool
) -> Iterator[Placed]:
    # Short pieces, so that they can be sorted by depth with other objects.
    pieces = max(1, int(length / 5))
    seed, height_m = int(rng.integers(2**31)), float(rng.uniform(0.8, 1.8))
    for piece in range(pieces):
        same = np.random.default_rng(seed)
        if fenced:
            solid = scenery.fence(same, side, front, length / pieces)
        else:
            solid = scenery.hedge(same, side, front, length / pieces, height_m)
        yield Placed(solid, 0, s + piece * length / pieces)


def _furniture(rng: np.random.Generator, street: Street, side: int, length: float) -> Iterator[Placed]:
    """Objects along the kerb: lamps, signs, bins, bollards, trees, parked cars."""
    edge = street.edge_m(side)
    x, lamp_m = side * (edge + 0.45), float(rng.uniform(6, 9))
    for s in (14.0, 44.0) if side < 0 else (29.0, 47.5):
        yield Placed(scenery.lamp_post(side, lamp_m), x, s)
    yield Placed(scenery.sign_post(rng), x, float(rng.uniform(2, 12)))
    if rng.random() < 0.7:
        yield Placed(scenery.sign_post(rng), x, float(rng.uniform(18, 42)))
    if rng.random() < 0.6:
        yield Placed(scenery.bin_box(rng), side * (edge + 0.6), float(rng.uniform(3, 45)))
    if rng.random() < 0.3:
        for number in range(5):
            yield Placed(scenery.bollard(), x, 32 + 1.6 * number)
    if street.urban_fraction < 0.8 and street.pavement_m > 2.8:
        for s in np.arange(5, length - 3, 13.0):
            crown = scenery.tree(rng, float(rng.uniform(5, 8)), street.bare_trees)
            yield Placed(crown, side * (edge + 0.9), float(s))
    for s in np.arange(4, length - 4, 6.2):
        if street.parks(side) and rng.random() < street.parked_fraction:
            facing = 1 if side < 0 or rng.random() < 0.3 else -1
            yield Placed(road_users.car(rng, facing), side * (edge - 1.15), float(s))
