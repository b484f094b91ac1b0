# SPDX-License-Identifier: Apache-2.0
"""Clouds by class, and organized clouds of the mask's size."""

from __future__ import annotations

from types import SimpleNamespace as Record
from typing import Any

import numpy as np
import pytest

from canet_ros.formats import parse_groups
from canet_ros.messages.points import LabelledPoints, labelled_depths, labelled_points
from canet_ros.messages.projection import camera_projection, rigid_transform
from canet_ros.model.class_table import load_class_table
from canet_ros.pipeline.outputs import point_outputs
from canet_ros.pipeline.segmentation import Segmentation

TABLE = np.stack([np.arange(256)] * 3, 1).astype(np.uint8)
CLASSES = load_class_table("camvid")
OUTPUTS = point_outputs(parse_groups("{green: [tree, pavement], points: [sky]}"))
SIZE = (64, 48)


def info(size: tuple[int, int] = SIZE) -> Any:
    width, height = size
    roi = Record(x_offset=0, y_offset=0, width=0, height=0)
    k = [width, 0, width / 2 - 0.5, 0, width, height / 2 - 0.5, 0, 0, 1]
    return Record(k=k, d=[], distortion_model="", width=width, height=height, roi=roi)


def segmentation(size: tuple[int, int] = SIZE) -> Segmentation:
    random = np.random.default_rng(0)
    mask = random.integers(0, len(CLASSES), size[::-1]).astype(np.uint8)
    mask[random.random(mask.shape) < 0.1] = 255
    return Segmentation(mask, random.integers(0, 256, size[::-1]).astype(np.uint8))


def classes_of(name: str) -> Any:
    return OUTPUTS[name](CLASSES)


def rows(points: np.ndarray) -> set[bytes]:
    return {point.tobytes() for point in points.ravel()}


@pytest.fixture
def cloud() -> LabelledPoints:
    """Points around the sensor, a tenth of them in front of the camera, some not measured."""
    xyz = np.random.default_rng(1).normal(0, 20, (5000, 3)).astype(np.float32)
    xyz[:50, 1], xyz[50:60], xyz[60:70, 2] = np.nan, np.inf, -np.inf
    to_camera = rigid_transform([0.2, -0.5, 0.1, 0.5, -0.5, 0.5, 0.5])
    return labelled_points(xyz, to_camera, camera_projection(info(), SIZE), segmentation(), TABLE)


def test_a_group_and_its_complement_share_nothing_and_hold_every_measured_point(
    cloud: LabelledPoints,
) -> None:
    inside, outside = (cloud.of(classes_of(f"groups/green/{name}")) for name in ("points", "points_outside"))
    ids = [CLASSES.names.index(name) for name in ("tree", "pavement")]
    assert len(inside) > 20
    assert rows(inside) == rows(cloud.seen[np.isin(cloud.seen["label"], ids)])
    assert not np.isin(outside["label"], ids).any()
    measured = cloud.xyz[np.isfinite(cloud.xyz).all(1)]
    found = np.concatenate([inside["xyz"], outside["xyz"]])
    assert rows(np.sort(found.view("V12"))) == rows(np.sort(np.ascontiguousarray(measured).view("V12")))
    assert len(found) == len(measured)
    unseen = outside[len(cloud.seen) - len(inside) :]
    assert len(unseen) == len(measured) - len(cloud.seen) > 3000
    assert set(unseen["label"]) == {255}
    assert not unseen["confidence"].any()
    assert cloud.of(classes_of("points")) is cloud.seen


def test_clouds_without_points_of_a_group(cloud: LabelledPoints) -> None:
    assert cloud.of(np.zeros(256, np.bool_)).shape == (0,)
    assert np.isnan(cloud.organized(np.zeros(256, np.bool_))["xyz"]).all()


def test_an_organized_cloud_has_each_point_at_its_pixel(cloud: LabelledPoints) -> None:
    mask = segmentation().mask
    whole = cloud.organized()
    assert whole.shape == mask.shape
    measured = np.isfinite(whole["xyz"]).all(2)
    assert set(np.flatnonzero(measured)) == set(cloud.pixels)
    np.testing.assert_array_equal(whole["label"][measured], mask[measured])
    assert rows(whole[measured]) <= rows(cloud.seen)
    assert np.isnan(whole["xyz"][~measured]).all()
    assert set(whole["label"][~measured]) == {255}
    green, others = (cloud.organized(classes_of(f"groups/green/{n}")) for n in ("points", "points_outside"))
    ids = [CLASSES.names.index(name) for name in ("tree", "pavement")]
    np.testing.assert_array_equal(np.isfinite(green["xyz"][..., 0]), measured & np.isin(mask, ids))
    np.testing.assert_array_equal(np.isfinite(others["xyz"][..., 0]), measured & ~np.isin(mask, ids))


@pytest.mark.parametrize("size", [(64, 48), (32, 24), (128, 96), (96, 72)])
def test_depth_images_of_any_size_are_organized_as_the_mask(size: tuple[int, int]) -> None:
    depths = np.random.default_rng(2).uniform(1, 9, size[::-1]).astype(np.float32)
    depths[:, : size[0] // 4] = 0
    found = labelled_depths(depths, camera_projection(info(), size), segmentation(), TABLE).organized()
    assert found.shape == SIZE[::-1]
    measured = np.isfinite(found["xyz"][..., 2])
    assert not measured[:, :16].any()
    assert measured[:, 16:].mean() == pytest.approx(min(1, size[0] * size[1] / (64 * 48)))
    if size == SIZE:
        np.testing.assert_array_equal(found["xyz"][..., 2][measured], depths[measured])
    # Projected again, every point is at its pixel.
    rows_, columns = np.nonzero(measured)
    x, y, z = found["xyz"][measured].T
    np.testing.assert_allclose(x / z * 64 + 31.5, columns, atol=0.51)
    np.testing.assert_allclose(y / z * 64 + 23.5, rows_, atol=0.51)
