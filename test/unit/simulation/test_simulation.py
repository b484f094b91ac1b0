# SPDX-License-Identifier: Apache-2.0
"""Synthetic scenes: determinism, geometry and classes."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from canet_ros.simulation import StreetClass, StreetDrive, write_scenes

STRAIGHT_SEED = next(seed for seed in range(50) if StreetDrive(seed, 64, 48).camera(0).street.bend_m == 0)
BENT_SEED = next(seed for seed in range(50) if StreetDrive(seed, 64, 48).camera(0).street.bend_m > 3)


def test_same_seed_gives_same_bytes_and_another_seed_does_not() -> None:
    first, again, other = (StreetDrive(seed, 160, 120).frame(7) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.labels, other.labels)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (333, 201), (101, 400), (1920, 1080)])
def test_shapes_dtypes_and_ids(width: int, height: int) -> None:
    frame = StreetDrive(1, width, height).frame(30)
    assert frame.image.shape == (height, width, 3)
    assert frame.labels.shape == (height, width)
    assert frame.image.dtype == frame.labels.dtype == np.uint8
    assert set(np.unique(frame.labels)) <= set(range(12))
    assert frame.image.std() > 10


@pytest.mark.parametrize("seed", [STRAIGHT_SEED, BENT_SEED])
def test_the_camera_matrix_projects_points_onto_their_labels(seed: int) -> None:
    drive = StreetDrive(seed, 640, 480)
    right, checked = 0, 0
    for index in (0, 37, 60):
        camera, labels = drive.camera(index), drive.frame(index).labels
        for side, ahead_m in itertools.product((-1, 1), np.arange(6.0, 30.0, 1.0)):
            # Both sides of the kerb: road, then pavement.
            for beyond_m, label in ((-0.25, StreetClass.ROAD), (0.25, StreetClass.PAVEMENT)):
                x = side * (camera.street.edge_m(side) + beyond_m)
                point = camera.to_camera(np.array([[x, 0.0, ahead_m]], dtype=np.float32))[0]
                u, v, w = drive.camera_matrix @ point
                column, row = int(u / w), int(v / w)
                if not (0 <= column < 640 and 0 <= row < 480) or _side_street_at(labels, row):
                    continue
                # Cars and people may occlude the point.
                if labels[row, column] in (StreetClass.ROAD, StreetClass.PAVEMENT):
                    checked += 1
                    right += labels[row, column] == label
    assert checked > 30
    assert right == checked


def _side_street_at(labels: NDArray[np.uint8], row: int) -> bool:
    """Whether the road of a side street reaches the image border in this row, where there is no kerb."""
    return bool(np.any(labels[row, [0, -1]] == StreetClass.ROAD))


def test_write_scenes_gives_the_layout_of_camvid(tmp_path: Path) -> None:
    write_scenes(tmp_path, count=3, first_seed=11, width=96, height=72)
    image_files, label_files = (sorted((tmp_path / name).iterdir()) for name in ("images", "labels"))
    assert [path.name for path in image_files] == [path.name for path in label_files]
    assert len(image_files) == 3
    images = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in image_files]
    labels = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in label_files]
    assert all(image.shape == (72, 96, 3) for image in images)
    assert all(label.shape == (72, 96) and label.dtype == np.uint8 and label.max() <= 11 for label in labels)
    assert not np.array_equal(labels[0], labels[1])
