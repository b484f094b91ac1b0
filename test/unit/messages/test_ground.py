# SPDX-License-Identifier: Apache-2.0
"""Free space on the ground, compared with the geometry of the synthetic street."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace as Record
from typing import Any

import cv2
import numpy as np
import pytest

from canet_ros.formats import parse_heights
from canet_ros.messages.clouds import CloudError
from canet_ros.messages.ground import GroundOptions, GroundSight, GroundSync, GroundView, merge
from canet_ros.messages.projection import Projection, camera_projection
from canet_ros.simulation import StreetClass, StreetDrive
from canet_ros.simulation.street import CAMERA_HEIGHT_M
from canet_ros.simulation.world import BLOCK_M, Placed, block, moving_objects

SIZE = (1280, 720)
OPTIONS = GroundOptions(30.0, 0.1, (0.0, 0.45), 0.4)
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # of a camera that looks along x
GROUND = np.isin(np.arange(256), (StreetClass.ROAD, StreetClass.PAVEMENT))
BEARINGS = -math.pi + 2 * math.pi / OPTIONS.bearings * np.arange(OPTIONS.bearings)
DRIVES = [drive for seed in range(24) if not (drive := StreetDrive(seed, *SIZE))._appearance.bonnet][:6]


def pose(rotation: Any = OPTICAL, position: Any = (0, 0, CAMERA_HEIGHT_M)) -> np.ndarray:
    return np.column_stack([rotation, position])


def turn(degrees: float, axis: int) -> np.ndarray:
    return cv2.Rodrigues(np.radians(degrees) * np.eye(3)[axis])[0]


def pinhole(drive: StreetDrive, model: str = "plumb_bob", d: Any = (0.0,) * 5) -> Projection:
    whole = Record(x_offset=0, y_offset=0, width=0, height=0)
    k = drive.camera_matrix.ravel()
    info = Record(k=k, d=list(d), distortion_model=model, width=SIZE[0], height=SIZE[1], roi=whole)
    return camera_projection(info, SIZE)


def sight(view: GroundView, labels: np.ndarray, confidence: np.ndarray | None = None) -> GroundSight:
    return view.look(GROUND, labels, np.full_like(labels, 255) if confidence is None else confidence)


@functools.cache
def labels_of(drive: StreetDrive) -> np.ndarray:
    return drive.frame(30).labels


def objects(drive: StreetDrive, index: int) -> list[Placed]:
    camera = drive.camera(index)
    numbers = range(int(camera.s // BLOCK_M) - 1, int((camera.s + 60) // BLOCK_M) + 1)
    static = [placed for number in numbers for placed in block(camera.street, number).static]
    return static + list(moving_objects(camera.street, index / 10))


def on_ground(drive: StreetDrive, index: int, points: np.ndarray) -> np.ndarray:
    """(..., 2) forward and left of the camera, of points (..., 3) of the street."""
    points = np.asarray(points - [0, 0, drive.camera(index).s], np.float32)
    return drive.camera(index).to_camera(points.reshape(-1, 3))[:, [2, 0]].reshape(*points.shape[:-1], 2) * [
        1,
        -1,
    ]


def footprint(drive: StreetDrive, index: int, placed: Placed) -> np.ndarray:
    """Corners of the rectangle below an object, (4, 2)."""
    (left, _, near), (right, _, far) = placed.solid.low, placed.solid.high
    corners = np.array([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)])
    return on_ground(drive, index, corners + np.array([placed.x, 0, placed.s]))


@functools.cache
def true_ranges(drive: StreetDrive, index: int, origin: tuple[float, float]) -> np.ndarray:
    """Distance by bearing from the origin to the nearest edge of an obstacle's polygon that lies on the ground.

    NaN where a road user is nearer, which has parts above the ground.
    """
    edges, outlines = [], []
    for placed in objects(drive, index):
        solid = placed.solid
        corners = solid.vertices + np.array([placed.x, 0, placed.s])
        starts = np.cumsum(solid.vertex_counts) - solid.vertex_counts
        for start, length, count in zip(starts, solid.vertex_counts, solid.polygon_counts):
            polygons = corners[start : start + length].reshape(count, -1, 3)
            pairs = np.stack([polygons, np.roll(polygons, -1, 1)], 2)
            edges.append(on_ground(drive, index, pairs[(np.abs(pairs[..., 1]) < 1e-4).all(2)]))
        if solid.labels[0] in (StreetClass.CAR, StreetClass.BICYCLIST, StreetClass.PEDESTRIAN):
            rectangle = footprint(drive, index, placed)
            outlines.append(np.stack([rectangle, np.roll(rectangle, -1, 0)], 1))
    true, nearest = (_distances(np.concatenate(lines) - origin) for lines in (edges, outlines))
    return np.where(true < nearest + 0.2, true, np.nan)


def _distances(edges: np.ndarray) -> np.ndarray:
    """From the origin to the nearest of edges (n, 2, 2), by bearing."""
    start, end = edges[:, 0], edges[:, 1]
    ray = np.stack([np.cos(BEARINGS), np.sin(BEARINGS)], 1)[:, None]
    with np.errstate(all="ignore"):
        scale = _cross(ray, end - start)
        distance, along = _cross(start, end - start) / scale, _cross(start, ray) / scale
    return np.where((along >= 0) & (along <= 1) & (distance > 0.5), distance, np.inf).min(1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


@pytest.mark.parametrize(
    ("model", "d", "rotation", "position"),
    [
        ("plumb_bob", (0.0,) * 5, np.eye(3), (0, 0)),
        ("plumb_bob", (-0.3, 0.1, 0.001, -0.001, 0.01), np.eye(3), (0, 0)),
        ("rational_polynomial", (0.3, 0.02, 0.001, 0, 0.01, 0.6, 0.1, 0.01), np.eye(3), (0, 0)),
        ("equidistant", (-0.02, 0.003, 0.001, 0.0), np.eye(3), (0, 0)),
        ("plumb_bob", (0.0,) * 5, turn(6, 2) @ turn(-9, 0), (0, 0)),  # rolled, and pitched down
        ("plumb_bob", (0.0,) * 5, turn(4, 1), (1.5, -0.4)),
    ],
)
def test_contacts_meet_the_geometry_of_the_street(model: str, d: Any, rotation: Any, position: Any) -> None:
    """The image of another camera at the same place is resampled from that of the street."""
    pairs = []
    for drive in DRIVES:
        projection, labels = pinhole(drive, model, d), labels_of(drive)
        x, y = projection.rays
        rays = rotation @ np.stack([x, y, np.ones_like(x)])
        u, v, w = drive.camera_matrix @ rays
        with np.errstate(invalid="ignore"):
            columns, rows = (
                np.nan_to_num(np.rint(p / w), nan=-1).astype(int).reshape(SIZE[::-1]) for p in (u, v)
            )
        inside = (columns >= 0) & (columns < SIZE[0]) & (rows >= 0) & (rows < SIZE[1])
        seen = np.where(inside, labels[rows.clip(0, SIZE[1] - 1), columns.clip(0, SIZE[0] - 1)], 255)
        view = GroundView(projection, pose(OPTICAL @ rotation, (*position, CAMERA_HEIGHT_M)), OPTIONS)
        ranges, _ = merge([sight(view, seen.astype(np.uint8), inside.astype(np.uint8) * 255)], OPTIONS)
        pairs.append(np.stack([true_ranges(drive, 30, (-position[0], -position[1])), ranges]))
    true, found = np.concatenate(pairs, 1)
    both = np.isfinite(true) & np.isfinite(found)
    true, found = true[both], found[both]
    error = np.abs(found - true)
    near = (true > 8) & (true < 12)
    far = true >= 12
    assert min(near.sum(), far.sum()) > 30
    assert np.median(error[near]) <= 0.05
    assert np.median(error[far] / true[far]) <= 0.02


def test_no_cell_inside_an_obstacle_is_free() -> None:
    inside, free_count = 0, 0
    for drive in DRIVES:
        _, cells = merge([sight(GroundView(pinhole(drive), pose(), OPTIONS), labels_of(drive))], OPTIONS)
        rows, columns = np.nonzero(cells == 0)
        free = (np.stack([columns, rows], 1) - OPTIONS.side / 2 + 0.5) * OPTIONS.resolution_m
        free_count += len(free)
        for placed in objects(drive, 30):
            corners = footprint(drive, 30, placed)
            cut = (np.abs(np.arctan2(corners[:, 1], corners[:, 0])) > 0.5).any()
            bicycle = (
                placed.solid.labels[0] == StreetClass.BICYCLIST
            )  # wheels in a line, narrower than the handlebars
            if placed.solid.low[1] < 0.5 and not cut and not bicycle:
                edges = np.roll(corners, -1, 0) - corners
                sides = _cross(edges, free[:, None] - corners)
                inside += np.count_nonzero((sides > 0).all(1) | (sides < 0).all(1))
    assert free_count > 100_000
    assert inside <= free_count / 5000


def scene(distance_m: float = 10.0, half_width_m: float = 1.0) -> np.ndarray:
    """Road up to the horizon with a wall of 5 m in the middle, seen by ``pinhole(DRIVES[0])``."""
    labels = np.full(SIZE[::-1], StreetClass.ROAD, np.uint8)
    (fx, _, cx), (_, fy, cy), _ = DRIVES[0].camera_matrix
    labels[: math.ceil(cy)] = StreetClass.SKY
    left, right = (round(cx + side * fx * half_width_m / distance_m) for side in (-1, 1))
    labels[: round(cy + fy * CAMERA_HEIGHT_M / distance_m) + 1, left : right + 1] = StreetClass.BUILDING
    return labels


def at(ranges: np.ndarray, degrees: float) -> float:
    return float(ranges[np.abs(BEARINGS - math.radians(degrees)).argmin()])


def test_an_obstacle_is_occupied_at_its_edge_and_casts_no_shadow() -> None:
    view = GroundView(pinhole(DRIVES[0]), pose(), OPTIONS)
    labels, confidence = scene(), np.full(SIZE[::-1], 255, np.uint8)
    confidence[:, : SIZE[0] // 4] = 99  # below 0.4
    ranges, cells = merge([sight(view, labels, confidence)], OPTIONS)
    assert at(ranges, 0) == pytest.approx(10, abs=0.05)
    assert at(ranges, -12) == np.inf  # the range
    assert math.isnan(at(ranges, 20))  # unsure
    assert math.isnan(at(ranges, 90))  # not seen
    middle = OPTIONS.side // 2
    ahead = cells[middle, middle:]
    assert list(ahead[[0, 20, 60, 97, 110, 290]]) == [-1, -1, 0, 0, -1, -1]
    assert (ahead == 100).sum() == 1
    assert abs(np.flatnonzero(ahead == 100)[0] - 100) <= 1
    assert set(range(-10, 10)) <= set(np.nonzero(cells == 100)[0] - middle) <= set(range(-11, 11))
    assert not (cells == 0)[:, middle + 101 :][middle - 8 : middle + 9].any()


def test_ignored_pixels_before_the_ground_are_not_seen_and_later_ones_are_unsure() -> None:
    view, labels = GroundView(pinhole(DRIVES[0]), pose(), OPTIONS), scene()
    for rows, expected in ((slice(650, 720), 10.0), (slice(500, 520), math.nan)):
        ignored = labels.copy()
        ignored[rows] = 255
        confidence = np.where(ignored == 255, np.uint8(0), np.uint8(255))
        assert at(merge([sight(view, ignored, confidence)], OPTIONS)[0], 0) == pytest.approx(
            expected, abs=0.05, nan_ok=True
        )


def test_cameras_are_merged() -> None:
    views = [GroundView(pinhole(DRIVES[0]), pose(turn(yaw, 2) @ OPTICAL), OPTIONS) for yaw in (0, 180)]
    sights = [sight(view, scene(distance_m)) for view, distance_m in zip(views, (10, 6))]
    ranges, cells = merge(sights, OPTIONS)
    assert at(ranges, 0) == pytest.approx(10, abs=0.05)
    assert at(ranges, -180) == pytest.approx(6, abs=0.05)
    for one in sights:
        np.testing.assert_array_less(merge([one], OPTIONS)[1] == 0, (cells >= 0) + 0.5)


def test_stamps_are_grouped_within_the_slop() -> None:
    def groups(*stamps: tuple[str, int]) -> list[tuple[int, list[str]]]:
        sync: Any = GroundSync()
        return [group for name, stamp in stamps for group in sync.add(name, stamp, name, 50)]

    first = [(0, ["a"]), (10, ["a", "b"])]  # nobody knows of b before
    assert groups(("a", 0), ("b", 10)) == first
    assert groups(("a", 0), ("b", 10), ("a", 100), ("b", 110)) == [*first, (110, ["a", "b"])]
    assert groups(("a", 0), ("b", 10), ("a", 100), ("b", 180)) == [*first, (100, ["a"])]
    assert groups(("a", 0), ("b", 10), ("a", 100), ("a", 200)) == [*first, (100, ["a"])]
    silent_ns = 2 * 10**9
    assert groups(("a", 0), ("b", 10), ("a", silent_ns)) == [*first, (silent_ns, ["a"])]


def test_a_pose_from_which_no_ground_is_seen_is_refused() -> None:
    for position, rotation, words in (
        ((0, 0, 0), OPTICAL, "0.00 m above the ground"),
        ((0, 0, 1.4), OPTICAL @ turn(60, 0), "sees no ground within 30 m"),
    ):
        with pytest.raises(CloudError, match=words):
            GroundView(pinhole(DRIVES[0]), pose(rotation, position), OPTIONS)
    for text in ("0.5", "0.5,0.1", "a,b", "nan,0"):
        with pytest.raises(ValueError, match="expected low,high in m"):
            parse_heights(text)
