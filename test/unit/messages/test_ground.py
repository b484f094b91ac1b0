# SPDX-License-Identifier: Apache-2.0
"""Free space on the ground, compared with the geometry of the synthetic street."""

from __future__ import annotations

import functools
import math
from typing import Any

import cv2
import numpy as np
import pytest

from canet_ros.messages.clouds import CloudError
from canet_ros.messages.ground import GroundOptions, GroundView, merge
from canet_ros.messages.projection import Projection
from canet_ros.simulation import StreetClass, StreetDrive
from canet_ros.simulation.appearance import make_appearance
from canet_ros.simulation.street import CAMERA_HEIGHT_M
from canet_ros.simulation.world import BLOCK_M, Placed, block, moving_objects

SIZE = (1280, 720)
FRAME = 30
OPTIONS = GroundOptions(30.0, 0.1, (0.0, 0.45), 0.4)
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # of a camera that looks along x
GROUND = np.isin(np.arange(256), (StreetClass.ROAD, StreetClass.PAVEMENT))
NO_DISTORTION, AHEAD = (0.0,) * 4, np.eye(3)
BEARINGS = -math.pi + 2 * math.pi / OPTIONS.bearings * np.arange(OPTIONS.bearings)
DRIVES = [StreetDrive(seed, *SIZE) for seed in range(24) if not make_appearance(seed).bonnet][:6]


def view(
    d: Any = NO_DISTORTION,
    fisheye: bool = False,
    rotation: Any = AHEAD,
    position: Any = (0, 0),
    drive: Any = DRIVES[0],
) -> GroundView:
    pose = np.column_stack([OPTICAL @ rotation, (*position, CAMERA_HEIGHT_M)])
    return GroundView(Projection(drive.camera_matrix, np.array(d), fisheye, SIZE), pose, OPTIONS)


def seen(view: GroundView, labels: np.ndarray, confidence: Any = 255) -> tuple[np.ndarray, np.ndarray]:
    full = np.broadcast_to(np.uint8(confidence), labels.shape)
    return merge([view.look(GROUND, labels, full)], OPTIONS)


def turn(degrees: float, axis: int) -> np.ndarray:
    return cv2.Rodrigues(np.radians(degrees) * np.eye(3)[axis])[0]


@functools.cache
def labels_of(drive: StreetDrive) -> np.ndarray:
    return drive.frame(FRAME).labels


def objects(drive: StreetDrive) -> list[Placed]:
    camera = drive.camera(FRAME)
    numbers = range(int(camera.s // BLOCK_M) - 1, int((camera.s + 60) // BLOCK_M) + 1)
    static = [placed for number in numbers for placed in block(camera.street, number).static]
    return static + list(moving_objects(camera.street, FRAME / 10))


def on_ground(drive: StreetDrive, points: np.ndarray, placed: Placed) -> np.ndarray:
    """(..., 2) forward and left of the camera, of points (..., 3) of an object."""
    camera = drive.camera(FRAME)
    points = np.asarray(points + np.array([placed.x, 0, placed.s - camera.s]), np.float32)
    return camera.to_camera(points.reshape(-1, 3))[:, [2, 0]].reshape(*points.shape[:-1], 2) * [1, -1]


def footprint(drive: StreetDrive, placed: Placed) -> np.ndarray:
    """Corners of the rectangle below an object, (4, 2)."""
    (left, _, near), (right, _, far) = placed.solid.low, placed.solid.high
    return on_ground(
        drive, np.array([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)]), placed
    )


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


@pytest.mark.parametrize(
    "camera",
    [
        {},
        {"d": (-0.3, 0.1, 0.001, -0.001, 0.01)},
        {"d": (0.3, 0.02, 0.001, 0, 0.01, 0.6, 0.1, 0.01)},  # rational_polynomial
        {"d": (-0.02, 0.003, 0.001, 0.0), "fisheye": True},
        {"rotation": turn(6, 2) @ turn(-9, 0)},  # rolled, and pitched down
        {"rotation": turn(4, 1), "position": (1.5, -0.4)},
    ],
)
def test_a_wall_is_where_it_is(camera: dict[str, Any]) -> None:
    """The image of another camera at the same place is resampled from that of an ideal one."""
    matrix = DRIVES[0].camera_matrix
    projection = Projection(matrix, np.array(camera.get("d", NO_DISTORTION)), "fisheye" in camera, SIZE)
    rays = np.vstack([projection.rays, np.ones((1, SIZE[0] * SIZE[1]))])
    u, v, w = matrix @ camera.get("rotation", AHEAD) @ rays
    columns, rows = (np.nan_to_num(p / w, nan=-9).reshape(SIZE[::-1]).astype(np.float32) for p in (u, v))
    labels = cv2.remap(wall(), columns, rows, cv2.INTER_NEAREST, borderValue=255)
    ranges, _ = seen(view(**camera), labels, np.where(labels == 255, 0, 255))
    x, y = camera.get("position", (0, 0))
    true = (x + 10) / np.cos(BEARINGS)
    on_wall = (np.abs(BEARINGS) < 1) & (np.abs(true * np.sin(BEARINGS) - y) < 0.9)
    assert on_wall.sum() > 40
    np.testing.assert_allclose(ranges[on_wall], true[on_wall], atol=0.06)


def test_no_cell_inside_an_obstacle_is_free() -> None:
    inside = free_count = 0
    for drive in DRIVES:
        _, cells = seen(view(drive=drive), labels_of(drive))
        rows, columns = np.nonzero(cells == 0)
        free = (np.stack([columns, rows], 1) - OPTIONS.side / 2 + 0.5) * OPTIONS.resolution_m
        free_count += len(free)
        for placed in objects(drive):
            corners = footprint(drive, placed)
            cut = (np.abs(np.arctan2(corners[:, 1], corners[:, 0])) > 0.5).any()  # by the border of the image
            bicycle = (
                placed.solid.surfaces["label"][0] == StreetClass.BICYCLIST
            )  # wheels in a line, narrower than the handlebars
            if placed.solid.low[1] < 0.5 and not cut and not bicycle:
                sides = _cross(np.roll(corners, -1, 0) - corners, free[:, None] - corners)
                inside += np.count_nonzero((sides > 0).all(1) | (sides < 0).all(1))
    assert free_count > 60_000
    assert inside <= free_count / 5000


def wall(distance_m: float = 10.0) -> np.ndarray:
    """Labels of a road up to the horizon with a wall 2 m wide ahead, seen by ``view()``."""
    labels = np.full(SIZE[::-1], StreetClass.ROAD, np.uint8)
    (fx, _, cx), (_, fy, cy), _ = DRIVES[0].camera_matrix
    labels[: math.ceil(cy)] = StreetClass.SKY
    left, right = (round(cx + side * fx / distance_m) for side in (-1, 1))
    labels[: round(cy + fy * CAMERA_HEIGHT_M / distance_m) + 1, left : right + 1] = StreetClass.BUILDING
    return labels


def at(ranges: np.ndarray, degrees: float) -> float:
    return float(ranges[np.abs(BEARINGS - math.radians(degrees)).argmin()])


def test_an_obstacle_is_occupied_at_its_edge_and_casts_no_shadow() -> None:
    unsure = np.where(np.arange(SIZE[0]) < SIZE[0] // 4, 99, 255)  # 99: below 0.4
    ranges, cells = seen(view(), wall(), unsure)
    assert at(ranges, 0) == pytest.approx(10, abs=0.05)
    assert at(ranges, -12) == np.inf  # the range
    assert math.isnan(at(ranges, 20))  # unsure
    assert math.isnan(at(ranges, 90))  # not seen
    middle = OPTIONS.side // 2
    ahead = cells[middle, middle:]
    assert list(ahead[[0, 20, 60, 97, 110, 290]]) == [-1, -1, 0, 0, -1, -1]
    assert list(np.flatnonzero(ahead == 100)) in ([99], [100])
    assert set(range(-10, 10)) <= set(np.nonzero(cells == 100)[0] - middle) <= set(range(-11, 11))


@pytest.mark.parametrize(("rows", "expected"), [(slice(650, 720), 10.0), (slice(500, 520), math.nan)])
def test_ignored_pixels_are_not_seen_before_the_ground_and_unsure_in_it(rows: slice, expected: float) -> None:
    labels = wall()
    labels[rows] = 255
    ranges, _ = seen(view(), labels, np.where(labels == 255, 0, 255))
    assert at(ranges, 0) == pytest.approx(expected, abs=0.05, nan_ok=True)


def test_a_pose_from_which_no_ground_is_seen_is_refused() -> None:
    with pytest.raises(CloudError, match="sees no ground within 30 m"):
        view(rotation=turn(60, 0))
    options = GroundOptions(30.0, 0.1, (1.5, 2.0), 0.4)
    with pytest.raises(CloudError, match=r"-1\.50 m above the ground"):
        GroundView(Projection(DRIVES[0].camera_matrix, np.zeros(4), False, SIZE), np.eye(3, 4), options)
