# SPDX-License-Identifier: Apache-2.0
"""Projection of points to pixels, compared with the synthetic street and OpenCV; clouds of all layouts and by class."""

from __future__ import annotations

from types import SimpleNamespace as Record
from typing import Any

import cv2
import numpy as np
import pytest

from canet_ros.formats import parse_groups
from canet_ros.messages.clouds import CloudError, cloud_xyz, depth_values
from canet_ros.messages.points import LabelledPoints, labelled_depths, labelled_points, visible_points
from canet_ros.messages.projection import camera_projection, rigid_transform
from canet_ros.model.class_table import load_class_table
from canet_ros.pipeline.outputs import point_outputs
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.simulation import StreetDrive

IDENTITY = rigid_transform([0, 0, 0, 0, 0, 0, 1])
TABLE = np.stack([np.arange(256)] * 3, 1).astype(np.uint8)


def camera_info(matrix: Any, size: tuple[int, int], model: str = "plumb_bob", d: Any = (0.0,) * 5) -> Any:
    roi = Record(x_offset=0, y_offset=0, width=0, height=0)
    return Record(
        k=np.ravel(matrix), d=list(d), distortion_model=model, width=size[0], height=size[1], roi=roi
    )


def cloud(xyz: np.ndarray, number: str = "<f4", before: int = 0, padding: int = 0, height: int = 1) -> Any:
    """A PointCloud2 whose points have ``before`` bytes ahead of x, and rows with ``padding`` bytes at their end."""
    size, width = np.dtype(number).itemsize, len(xyz) // height
    step = before + 3 * size + 3
    data = np.zeros((height, width * step + padding), np.uint8)
    points = np.zeros((len(xyz), step), np.uint8)
    points[:, before : before + 3 * size] = np.ascontiguousarray(xyz, number).view(np.uint8)
    data[:, : width * step] = points.reshape(height, -1)
    kind = 1 + ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"].index(number[1:])
    fields = [Record(name=axis, offset=before + i * size, datatype=kind) for i, axis in enumerate("xyz")]
    return Record(
        width=width, height=height, fields=fields, is_bigendian=number[0] == ">", point_step=step,
        row_step=data.shape[1], data=data.tobytes(),
    )  # fmt: skip


def rays(matrix: np.ndarray, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Points (n, 3) that fall on the centres of pixels (n, 2)."""
    x, y = ((pixels - matrix[:2, 2]) / matrix[[0, 1], [0, 1]]).T
    return np.stack([x * depth, y * depth, depth], 1).astype(np.float32)


def every_pixel(width: int, height: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).reshape(-1, 2).astype(float)


@pytest.mark.parametrize("number", ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("before", "padding", "height"), [(0, 0, 1), (5, 7, 4)])
def test_clouds_of_every_layout_are_read(
    number: str, order: str, before: int, padding: int, height: int
) -> None:
    xyz = np.arange(72).reshape(24, 3).astype(np.float32)
    if number.startswith("f"):
        xyz[3, 1], xyz[5] = np.nan, np.inf
    message = cloud(xyz, order + number, before, padding, height)
    for field in message.fields:
        field.count = 0  # some drivers send 0 for 1
    np.testing.assert_array_equal(cloud_xyz(message), xyz)


@pytest.mark.parametrize("row_step", [None, 0, 24, 6, 2**31])
@pytest.mark.parametrize("size", [(6, 4), (24, 1), (1, 24), (0, 24), (24, 0), (4, 0), (0, 0)])
def test_wrong_sizes_are_corrected(size: tuple[int, int], row_step: int | None) -> None:
    xyz = np.random.default_rng(0).normal(0, 9, (24, 3)).astype(np.float32)
    message = cloud(xyz, height=4)
    message.width, message.height = size
    message.row_step = message.row_step if row_step is None else row_step
    np.testing.assert_array_equal(cloud_xyz(message), xyz)


def test_invalid_clouds_are_refused() -> None:
    whole = cloud(np.zeros((6, 3)))
    assert cloud_xyz(cloud(np.zeros((0, 3)))).shape == (0, 3)
    for change, words in (
        ({"fields": whole.fields[:2]}, "a cloud without z: it has x, y"),
        ({"data": whole.data[:-1]}, "do not fit"),
        ({"point_step": 8}, "point_step 8"),
        ({"width": 10**9}, "at most"),
        ({"height": 2, "width": 2, "row_step": 0}, "2x2 points .* do not fit data of 90 bytes"),
        ({"height": 4, "width": 0}, "90 bytes in a cloud of 0x4"),
        ({"width": 0, "data": whole.data[:-1]}, "89 bytes in a cloud"),
    ):
        with pytest.raises(CloudError, match=words):
            cloud_xyz(Record(**{**vars(whole), **change}))


@pytest.fixture(scope="module")
def street() -> tuple[np.ndarray, np.ndarray, Any]:
    """Labels, depths by pixel of ground up to a wall at 60 m, and the camera's info."""
    drive = StreetDrive(3, 160, 120)
    matrix = drive.camera_matrix
    below = np.maximum(every_pixel(160, 120)[:, 1] - matrix[1, 2], 0.1)
    depths = np.minimum(1.4 * matrix[1, 1] / below, 60.0)
    return drive.frame(40).labels, depths, camera_info(matrix, (160, 120))


def test_every_point_has_the_class_of_its_pixel(street: Any) -> None:
    """One point per pixel, from a sensor at another pose than the camera."""
    labels, depths, info = street
    points = rays(info.k.reshape(3, 3), every_pixel(160, 120), depths)
    to_camera = rigid_transform([0.2, -0.5, 0.1, 0.5, -0.5, 0.5, 0.5])  # a lidar: x forward, y left, z up
    in_cloud = ((points - to_camera[:, 3]) @ to_camera[:, :3]).astype(np.float32)
    segmentation, projection = (
        Segmentation(labels, np.full_like(labels, 51)),
        camera_projection(info, (160, 120)),
    )
    found = labelled_points(in_cloud, to_camera, projection, segmentation, TABLE).seen
    np.testing.assert_array_equal(found["label"], labels.ravel())
    np.testing.assert_array_equal(found["xyz"], in_cloud)
    np.testing.assert_array_equal(found["rgb"], labels.ravel().astype(np.uint32) * 0x010101)
    np.testing.assert_allclose(found["confidence"], 0.2)


def test_every_depth_has_the_class_of_its_pixel(street: Any) -> None:
    labels, depths, info = street
    depths = np.concatenate([[np.nan, 0, np.inf, -1], depths[4:]]).astype(np.float32)
    projection = camera_projection(info, (160, 120))
    segmentation = Segmentation(labels, np.full_like(labels, 51))
    found = labelled_depths(depths.reshape(120, 160), projection, segmentation, TABLE).seen
    np.testing.assert_array_equal(found["label"], labels.ravel()[4:])
    expected = rays(info.k.reshape(3, 3), every_pixel(160, 120), depths)[4:]
    np.testing.assert_allclose(found["xyz"], expected, rtol=1e-6)
    np.testing.assert_array_equal(found["rgb"], labels.ravel()[4:].astype(np.uint32) * 0x010101)
    np.testing.assert_allclose(found["confidence"], 0.2)
    half = Segmentation(labels[1::2, 1::2], labels[1::2, 1::2])
    found = labelled_depths(np.full((120, 160), 2, np.float32), projection, half, TABLE).seen
    np.testing.assert_array_equal(found["label"], np.repeat(np.repeat(half.mask, 2, 0), 2, 1).ravel())


def depth_image(depths: np.ndarray, encoding: str, padding: int = 0) -> Any:
    rows = np.pad(depths.view(np.uint8).reshape(len(depths), -1), ((0, 0), (0, padding)))
    big = depths.dtype.byteorder == ">"
    return Record(encoding=encoding, height=len(depths), width=depths.shape[1], is_bigendian=big,
                  step=rows.shape[1], data=rows.tobytes())  # fmt: skip


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("order", "<>")
def test_depth_images_are_read_in_mm_and_in_m(order: str, padding: int) -> None:
    mm = np.array([[0, 1, 1500], [65535, 250, 20]])
    for encoding in ("16UC1", "mono16"):
        found = depth_values(depth_image(mm.astype(f"{order}u2"), encoding, padding))
        np.testing.assert_allclose(found, mm / 1000, rtol=1e-6)
    m = np.array([[0, np.nan, 1.5], [np.inf, 0.25, 20]], f"{order}f4")
    np.testing.assert_array_equal(depth_values(depth_image(m, "32FC1", padding)), m)


def test_invalid_depth_images_are_refused() -> None:
    whole = depth_image(np.ones((4, 6), "<u2"), "16UC1")
    for change, words in (
        ({"encoding": "bgr8"}, "'bgr8': expected 16UC1"),
        ({"data": whole.data[:-1]}, "do not fit"),
        ({"step": 11, "data": whole.data + b"0"}, "step 11"),
        ({"width": 10**9}, "1000000000x4"),
        ({"height": 0, "data": b""}, "6x0"),
    ):
        with pytest.raises(CloudError, match=words):
            depth_values(Record(**{**vars(whole), **change}))


def test_hidden_points_and_points_outside_of_the_image_are_dropped() -> None:
    matrix = np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]])
    projection = camera_projection(camera_info(matrix, (1280, 720)), (1280, 720))
    side = (
        np.stack(np.meshgrid(np.arange(500, 700, 4), np.arange(300, 500, 4)), 2).reshape(-1, 2).astype(float)
    )
    near, far = rays(matrix, side, np.full(len(side), 5.0)), rays(matrix, side + 1, np.full(len(side), 30.0))
    free = rays(matrix, np.array([[900.0, 350]]), np.array([30.0]))
    others = np.array([[0, 0, -5], [9, 0, 5], [np.nan, 0, 5], [0, 0, np.inf], [0, 0, 0]], np.float32)
    index, pixels = visible_points(np.concatenate([far, near, free, others]), IDENTITY, projection)
    count = len(side)
    np.testing.assert_array_equal(index, [*range(count, 2 * count), 2 * count])
    assert pixels[-1] == 350 * 1280 + 900
    assert visible_points(np.empty((0, 3), np.float32), IDENTITY, projection)[0].size == 0


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", (-0.3, 0.1, 0.001, -0.002, -0.01)),
        ("rational_polynomial", (0.3, -0.1, 0.001, -0.001, 0.02, 0.6, -0.1, 0.03)),
        ("rational_polynomial", (0.1, -0.1, 0.001, -0.001, 0.02, 0.2, -0.1, 0.03, 0.01, -0.02, 0.02, 0.01)),
        ("equidistant", (0.02, -0.01, 0.003, -0.001)),
        ("equidistant", (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_distortion_matches_opencv_and_folds_nothing_into_the_image(model: str, d: tuple[float, ...]) -> None:
    matrix = np.array([[300.0, 0, 320], [0, 300, 240], [0, 0, 1]])
    projection = camera_projection(camera_info(matrix, (640, 480), model, d), (640, 480))
    points = np.random.default_rng(1).uniform((-3, -3, 2), (3, 3, 6), (500, 3)).astype(np.float32)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    expected = project(points.reshape(-1, 1, 3).astype(float), np.zeros(3), np.zeros(3), matrix, np.array(d))[
        0
    ]
    found = np.stack(projection.pixels(*(points[:, :2] / points[:, 2:]).T), 1)
    inside = ((expected.reshape(-1, 2) > 0) & (expected.reshape(-1, 2) < (639, 479))).all(1)
    assert inside.sum() > 100
    np.testing.assert_allclose(found[inside], expected.reshape(-1, 2)[inside], atol=0.01)
    there = np.isfinite(projection.rays[0])
    assert there.mean() > 0.9  # some of these polynomials fold at the corners
    back = np.stack(projection.pixels(*projection.rays), 1)[there]
    assert (np.abs(back - every_pixel(640, 480)[there]) < 0.1).all(1).mean() > 0.99
    aside = np.array([[60, 0, 1], [0, -80, 1], [40, 40, 1]], np.float32)  # more than 88 degrees off
    assert visible_points(aside, IDENTITY, projection)[0].size == 0


def test_a_resized_image_and_a_region_of_the_sensor() -> None:
    matrix = np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])
    point = rays(matrix, np.array([[100.0, 200.0]]), np.array([4.0]))
    info = camera_info(matrix, (640, 480))
    assert visible_points(point, IDENTITY, camera_projection(info, (320, 240)))[1].tolist() == [
        100 * 320 + 50
    ]
    info.roi = Record(x_offset=80, y_offset=160, width=320, height=240)
    assert visible_points(point, IDENTITY, camera_projection(info, (320, 240)))[1].tolist() == [40 * 320 + 20]


def test_invalid_cameras_and_transforms_are_refused() -> None:
    with pytest.raises(CloudError, match="not calibrated"):
        camera_projection(camera_info(np.zeros((3, 3)), (640, 480)), (640, 480))
    with pytest.raises(CloudError, match="distortion model 'thin_prism'"):
        camera_projection(camera_info(np.eye(3), (640, 480), "thin_prism"), (640, 480))
    for wrong in ([0, 0, 0, 0, 0, 0, 0], [1, 2, 3], [np.nan, 0, 0, 0, 0, 0, 1]):
        with pytest.raises(CloudError, match="expected x,y,z,qx,qy,qz,qw"):
            rigid_transform(wrong)


CLASSES = load_class_table("camvid")
OUTPUTS = point_outputs(parse_groups("{green: [tree, pavement], points: [sky]}"))
SIZE = (64, 48)


CAMERA = camera_info([64, 0, 31.5, 0, 64, 23.5, 0, 0, 1], SIZE, "", ())


def segmentation() -> Segmentation:
    random = np.random.default_rng(0)
    mask = random.integers(0, len(CLASSES), SIZE[::-1]).astype(np.uint8)
    mask[random.random(mask.shape) < 0.1] = 255
    return Segmentation(mask, random.integers(0, 256, SIZE[::-1]).astype(np.uint8))


def classes_of(name: str) -> Any:
    return OUTPUTS[name](CLASSES)


def rows(points: np.ndarray) -> set[bytes]:
    return {point.tobytes() for point in points.ravel()}


@pytest.fixture
def labelled() -> LabelledPoints:
    """Points around the sensor, a tenth of them in front of the camera, some not measured."""
    xyz = np.random.default_rng(1).normal(0, 20, (5000, 3)).astype(np.float32)
    xyz[:50, 1], xyz[50:60], xyz[60:70, 2] = np.nan, np.inf, -np.inf
    to_camera = rigid_transform([0.2, -0.5, 0.1, 0.5, -0.5, 0.5, 0.5])
    return labelled_points(xyz, to_camera, camera_projection(CAMERA, SIZE), segmentation(), TABLE)


def test_a_group_and_its_complement_share_nothing_and_hold_every_measured_point(
    labelled: LabelledPoints,
) -> None:
    inside, outside = (
        labelled.of(classes_of(f"groups/green/{name}")) for name in ("points", "points_outside")
    )
    ids = [CLASSES.names.index(name) for name in ("tree", "pavement")]
    assert len(inside) > 20
    assert rows(inside) == rows(labelled.seen[np.isin(labelled.seen["label"], ids)])
    assert not np.isin(outside["label"], ids).any()
    measured = labelled.xyz[np.isfinite(labelled.xyz).all(1)]
    found = np.concatenate([inside["xyz"], outside["xyz"]])
    assert rows(np.sort(found.view("V12"))) == rows(np.sort(np.ascontiguousarray(measured).view("V12")))
    assert len(found) == len(measured)
    unseen = outside[len(labelled.seen) - len(inside) :]
    assert len(unseen) == len(measured) - len(labelled.seen) > 3000
    assert set(unseen["label"]) == {255}
    assert not unseen["confidence"].any()
    assert labelled.of(classes_of("points")) is labelled.seen
    assert labelled.of(np.zeros(256, np.bool_)).shape == (0,)


def test_an_organized_cloud_has_each_point_at_its_pixel(labelled: LabelledPoints) -> None:
    mask = segmentation().mask
    whole = labelled.organized()
    assert whole.shape == mask.shape
    measured = np.isfinite(whole["xyz"]).all(2)
    assert set(np.flatnonzero(measured)) == set(labelled.pixels)
    np.testing.assert_array_equal(whole["label"][measured], mask[measured])
    assert rows(whole[measured]) <= rows(labelled.seen)
    assert np.isnan(whole["xyz"][~measured]).all()
    assert set(whole["label"][~measured]) == {255}
    green, others = (
        labelled.organized(classes_of(f"groups/green/{n}")) for n in ("points", "points_outside")
    )
    ids = [CLASSES.names.index(name) for name in ("tree", "pavement")]
    np.testing.assert_array_equal(np.isfinite(green["xyz"][..., 0]), measured & np.isin(mask, ids))
    np.testing.assert_array_equal(np.isfinite(others["xyz"][..., 0]), measured & ~np.isin(mask, ids))


@pytest.mark.parametrize("size", [(64, 48), (32, 24), (128, 96), (96, 72)])
def test_depth_images_of_any_size_are_organized_as_the_mask(size: tuple[int, int]) -> None:
    depths = np.random.default_rng(2).uniform(1, 9, size[::-1]).astype(np.float32)
    depths[:, : size[0] // 4] = 0
    found = labelled_depths(depths, camera_projection(CAMERA, size), segmentation(), TABLE).organized()
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
