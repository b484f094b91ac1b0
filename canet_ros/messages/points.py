# SPDX-License-Identifier: Apache-2.0
"""Label the points of a cloud or a depth image with the class of their pixel in a camera image.

Axes are those of ROS optical frames (REP 103): x right, y down, z forward. Pixel centres have integer coordinates, as
in ``sensor_msgs/CameraInfo``.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.messages.images import row_stride
from canet_ros.pipeline.segmenter import Segmentation

Points = NDArray[np.float32]  # (n, 3), m
Plane = NDArray[np.float32]  # (n,)

# NumPy types by the datatypes of sensor_msgs/PointField.
_DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_FLOAT32, _UINT32 = 7, 6
# Fields of a labelled cloud: name, offset, datatype. PCL and RViz read x, y, z, rgb and label in this layout.
FIELDS = (
    ("x", 0, _FLOAT32),
    ("y", 4, _FLOAT32),
    ("z", 8, _FLOAT32),
    ("rgb", 12, _FLOAT32),
    ("label", 16, _UINT32),
    ("confidence", 20, _FLOAT32),
)
_LABELLED = np.dtype([("xyz", "<f4", 3), ("rgb", "<u4"), ("label", "<u4"), ("confidence", "<f4")])
MAX_POINTS = 10_000_000
# By the depth encodings of sensor_msgs/Image: NumPy type, and unit in m. Old drivers send mono16.
_DEPTHS = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}
_NEAREST_M = 0.05
# Cell of the depth buffer, in pixels of an image 1280 wide. A point may be farther than the nearest in its cell by a
# factor and a distance, because distant ground spans a large depth in few rows.
_CELL_PX, _REFERENCE_WIDTH_PX = 8, 1280
_OCCLUSION_FACTOR, _OCCLUSION_M = 1.3, 0.5
# Undistortion of a pixel: stop below a change of 1e-8, or after 40 iterations.
_UNDISTORT_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-8)
_PINHOLE = ("plumb_bob", "rational_polynomial", "")
_FISHEYE = ("equidistant", "fisheye")


class CloudError(ValueError):
    """A cloud, depth image or camera info that cannot be used; the message says what is wrong and what is expected."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Projection from a camera's optical frame to the pixels of an image.

    Attributes:
        matrix: (3, 3) float64, K of the image.
        distortion: D of the camera info; empty: none.
        fisheye: whether D belongs to the equidistant model.
        size: of the image, (width, height).
    """

    matrix: NDArray[np.float64]
    distortion: NDArray[np.float64]
    fisheye: bool
    size: tuple[int, int]

    @functools.cached_property
    def bounds(self) -> NDArray[np.float32]:
        """Minimum and maximum x/z and y/z in the image, (2, 2). Distortion may fold rays beyond them into the image."""
        width, height = self.size
        u, v = np.linspace(-1, width, 33), np.linspace(-1, height, 33)
        border = np.concatenate(
            [np.stack([u, np.full(33, y)], 1) for y in (-1, height)]
            + [np.stack([np.full(33, x), v], 1) for x in (-1, width)]
        )
        rays = self._rays_at(border)
        rays = rays[np.isfinite(rays).all(1) & (np.abs(rays) < 1e3).all(1)]
        return np.asarray([rays.min(0), rays.max(0)] if len(rays) else [[-1e3] * 2, [1e3] * 2], np.float32)

    @functools.cached_property
    def rays(self) -> NDArray[np.float32]:
        """x/z and y/z of every pixel's centre, (2, H * W); NaN where no ray exists, as in the corners of a fisheye."""
        width, height = self.size
        pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).reshape(-1, 2).astype(float)
        rays = np.ascontiguousarray(self._rays_at(pixels).T, np.float32)
        with np.errstate(all="ignore"):
            rays[:, ~(np.abs(np.stack(self.pixels(*rays), 1) - pixels) < 0.5).all(1)] = np.nan
        return rays

    def _rays_at(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """x/z and y/z, (n, 2), at pixels (n, 2) of (column, row)."""
        points = pixels.reshape(-1, 1, 2)
        rays: Any
        if self.fisheye:
            rays = cv2.fisheye.undistortPoints(points, self.matrix, self.distortion[:4])
        else:
            # undistortPoints of OpenCV 4 stops after 5 iterations, with an error of a fifth of a pixel.
            undistort: Any = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)
            rays = undistort(
                points, self.matrix, self.distortion, R=None, P=None, criteria=_UNDISTORT_CRITERIA
            )
        return np.asarray(rays.reshape(-1, 2), np.float64)

    def pixels(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Columns and rows of rays, given their x/z and y/z within ``bounds``."""
        if self.distortion.any():
            x, y = self._distort_fisheye(x, y) if self.fisheye else self._distort(x, y)
        (fx, skew, cx), (_, fy, cy) = self.matrix[:2].astype(np.float32)
        return x * fx + (y * skew + cx if skew else cx), y * fy + cy

    def _distort(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """OpenCV's model of plumb_bob and rational_polynomial."""
        coefficients = np.zeros(12, np.float32)
        coefficients[: min(12, len(self.distortion))] = self.distortion[:12]
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = coefficients
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        if k4 or k5 or k6:
            radial /= 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        xy = 2 * x * y
        distorted_x = x * radial + p1 * xy + p2 * (r2 + 2 * x * x)
        distorted_y = y * radial + p2 * xy + p1 * (r2 + 2 * y * y)
        if s1 or s2 or s3 or s4:
            distorted_x += r2 * (s1 + r2 * s2)
            distorted_y += r2 * (s3 + r2 * s4)
        return distorted_x, distorted_y

    def _distort_fisheye(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        k1, k2, k3, k4 = self.distortion[:4].astype(np.float32)
        radius = np.maximum(np.sqrt(x * x + y * y), np.float32(1e-9))
        angle = np.arctan(radius)
        a2 = angle * angle
        scale = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4)))) / radius
        return x * scale, y * scale


def camera_projection(info: Any, size: tuple[int, int]) -> Projection:
    """Projection into the camera's image resized to ``size``, (width, height), from a ``sensor_msgs/CameraInfo``.

    Raises:
        CloudError: the camera is not calibrated, or its distortion model is unknown.
    """
    roi = info.roi
    roi = (roi.x_offset, roi.y_offset, roi.width, roi.height)
    return _projection(
        tuple(info.k), tuple(info.d), info.distortion_model, (info.width, info.height), roi, size
    )


@functools.lru_cache(maxsize=16)  # a camera repeats its calibration with every image
def _projection(
    k: tuple[float, ...],
    d: tuple[float, ...],
    model: str,
    sensor: tuple[int, int],
    roi: tuple[int, int, int, int],
    size: tuple[int, int],
) -> Projection:
    matrix = np.array(k, np.float64).reshape(3, 3)
    if 0 in sensor or not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise CloudError("the camera is not calibrated: its camera_info has no size or no K")
    if model not in (*_PINHOLE, *_FISHEYE):
        raise CloudError(
            f"distortion model {model!r}: expected {', '.join(filter(None, (*_PINHOLE, *_FISHEYE)))}"
        )
    distortion = np.array(d, np.float64)
    fisheye = model in _FISHEYE
    counts = (4,) if fisheye else (4, 5, 8, 12)
    if distortion.any() and len(distortion) not in counts:
        raise CloudError(f"{len(distortion)} coefficients in D of {model}: expected one of {counts}")
    # The image is the ROI (all zero: the full sensor), binned. K is that of the full sensor.
    for axis in (0, 1):
        scale = size[axis] / (roi[2 + axis] or sensor[axis])
        matrix[axis, :2] *= scale
        matrix[axis, 2] = (matrix[axis, 2] - roi[axis] + 0.5) * scale - 0.5
    # A fisheye without distortion differs from a pinhole; negligible coefficients select the fisheye model.
    if fisheye and not distortion.any():
        distortion = np.full(4, 1e-12)
    return Projection(matrix, distortion, fisheye, size)


def cloud_xyz(cloud: Any) -> Points:
    """x, y, z of every point of a ``sensor_msgs/PointCloud2``, (n, 3) in m, row by row; NaN and infinities are kept.

    Any byte order, offsets, padding and number format are read. Wrong sizes, which many drivers send, are corrected if
    the others are unambiguous: a ``row_step`` that does not fit the data means rows without padding, and a ``width`` or
    ``height`` of 0 is derived from the data.

    Raises:
        CloudError: x, y or z is missing, there are too many points, or the sizes contradict each other.
    """
    height, width = _cloud_size(cloud)
    count = height * width
    if count > MAX_POINTS:
        raise CloudError(f"a cloud of {count} points: at most {MAX_POINTS} are allowed")
    fields = {field.name: field for field in cloud.fields}
    missing = [axis for axis in "xyz" if axis not in fields or fields[axis].datatype not in _DATATYPES]
    if missing:
        raise CloudError(f"a cloud without {', '.join(missing)}: it has {', '.join(fields) or 'no fields'}")
    order = ">" if cloud.is_bigendian else "<"
    formats = [order + _DATATYPES[fields[axis].datatype] for axis in "xyz"]
    offsets = [fields[axis].offset for axis in "xyz"]
    end = max(offset + np.dtype(name).itemsize for offset, name in zip(offsets, formats))
    if count == 0:
        return np.empty((0, 3), np.float32)
    if cloud.point_step < end:
        raise CloudError(f"point_step {cloud.point_step} is too small for points of {end} bytes")
    row_bytes, length = width * cloud.point_step, len(cloud.data)
    row_step = cloud.row_step
    if row_step < row_bytes or length < (height - 1) * row_step + row_bytes:
        row_step = row_bytes
        if length < height * row_bytes or (height > 1 and length > height * row_bytes):
            raise CloudError(
                f"{width}x{height} points of {cloud.point_step} bytes do not fit data of {length} bytes and a row_step "
                f"of {cloud.row_step}: they take {height * row_bytes} bytes"
            )
    points = np.ndarray(
        (height, width),
        np.dtype(
            {"names": ["x", "y", "z"], "formats": formats, "offsets": offsets, "itemsize": cloud.point_step}
        ),
        np.frombuffer(cloud.data, np.uint8),
        strides=(row_step, cloud.point_step),
    )
    xyz = np.empty((count, 3), np.float32)
    with np.errstate(over="ignore"):
        for axis, name in enumerate("xyz"):
            xyz[:, axis] = points[name].ravel()
    return xyz


def _cloud_size(cloud: Any) -> tuple[int, int]:
    """Height and width in points; some drivers leave one or both 0."""
    height, width = cloud.height, cloud.width
    if (height and width) or len(cloud.data) == 0:
        return height, width
    side = height or width or 1
    count, rest = divmod(len(cloud.data), max(1, cloud.point_step))
    if rest or count % side:
        raise CloudError(
            f"data of {len(cloud.data)} bytes in a cloud of {width}x{height} points of {cloud.point_step} bytes"
        )
    return (1, count) if side in (1, count) else (side, count // side)


def depth_values(image: Any) -> NDArray[np.float32]:
    """Depth of every pixel of a ``sensor_msgs/Image`` (REP 118), (H, W) in m; 0, NaN and infinities: no point.

    Raises:
        CloudError: the encoding is neither ``16UC1`` (mm) nor ``32FC1`` (m), or size and data do not fit.
    """
    encoding = image.encoding
    kind, unit_m = _DEPTHS.get(encoding, ("", 0.0))
    if not kind:
        raise CloudError(f"a depth image in {encoding[:64]!r}: expected {', '.join(_DEPTHS)}")
    width, height = image.width, image.height
    if not 0 < width * height <= MAX_POINTS:
        raise CloudError(f"a depth image of {width}x{height}: expected 1 to {MAX_POINTS} pixels")
    number = np.dtype((">" if image.is_bigendian else "<") + kind)
    stride = row_stride(image.step, width * number.itemsize, height, len(image.data))
    if stride is None:
        raise CloudError(
            f"step {image.step} and data of {len(image.data)} bytes do not fit {width}x{height} pixels of {encoding}"
        )
    rows = np.ndarray(
        (height, width), number, np.frombuffer(image.data, np.uint8), strides=(stride, number.itemsize)
    )
    return rows * np.float32(unit_m) if unit_m != 1 else rows.astype(np.float32, copy=False)


def rigid_transform(numbers: Any) -> NDArray[np.float64]:
    """The transform (3, 4) [R|t] of x, y, z in m and a quaternion x, y, z, w.

    Raises:
        CloudError: ``numbers`` are not seven finite numbers, or the quaternion is zero.
    """
    values = np.asarray(numbers, np.float64)
    length = float(np.linalg.norm(values[3:])) if values.shape == (7,) else 0.0
    if not (np.isfinite(values).all() and length > 1e-9):
        raise CloudError(f"expected x,y,z,qx,qy,qz,qw, got {numbers!r}")
    x, y, z, w = values[3:] / length
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.column_stack([rotation, values[:3]])


def visible_points(
    xyz: Points, to_camera: NDArray[np.float64], projection: Projection
) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """The points visible to the camera, and their pixels: (m,) indices into the points, and into the flat image.

    A point is hidden by a nearer one in the same cell of the depth buffer, see ``_CELL_PX``.

    Args:
        xyz: (n, 3) in the cloud's frame, m.
        to_camera: (3, 4) [R|t] from there to the camera's optical frame.
    """
    width, height = projection.size
    rotation, move = to_camera[:, :3].astype(np.float32), to_camera[:, 3].astype(np.float32)
    (x_low, y_low), (x_high, y_high) = projection.bounds
    with np.errstate(all="ignore"):  # comparisons with NaN are false
        depth = xyz @ rotation[2] + move[2]
        index = np.flatnonzero((depth > _NEAREST_M) & (depth < np.inf))
        depth, in_front = depth[index], xyz[index]
        x, y = (in_front @ rotation[axis] + move[axis] for axis in (0, 1))
        x, y = x / depth, y / depth
        within = np.flatnonzero((x >= x_low) & (x <= x_high) & (y >= y_low) & (y <= y_high))
        depth, index = depth[within], index[within]
        columns, rows = (
            np.floor(plane + np.float32(0.5)) for plane in projection.pixels(x[within], y[within])
        )
        inside = np.flatnonzero((columns >= 0) & (columns < width) & (rows >= 0) & (rows < height))
    depth, index = depth[inside], index[inside]
    columns, rows = columns[inside].astype(np.int32), rows[inside].astype(np.int32)
    cell = max(2, math.ceil(_CELL_PX * width / _REFERENCE_WIDTH_PX))
    across = width // cell + 1
    cells = rows // cell * across + columns // cell
    nearest = np.full((height // cell + 1) * across, np.inf, np.float32)
    np.minimum.at(nearest, cells, depth)
    # Widen sideways only: beams are denser there than vertically, and ground has the same depth on both sides.
    widened: Any = cv2.erode(nearest.reshape(-1, across), np.ones((1, 3), np.uint8))
    with np.errstate(over="ignore"):  # of empty cells
        limit = np.maximum(
            widened * np.float32(_OCCLUSION_FACTOR), widened + np.float32(_OCCLUSION_M)
        ).ravel()
    visible = depth <= limit[cells]
    return index[visible], (rows * width + columns)[visible]


def labelled_points(
    xyz: Points,
    to_camera: NDArray[np.float64],
    projection: Projection,
    segmentation: Segmentation,
    rgb_table: NDArray[np.uint8],
) -> NDArray[Any]:
    """The points visible to the camera, in the cloud's order and frame, as records of ``FIELDS``, little endian.

    Args:
        segmentation: of the projection's image.
        rgb_table: (256, 3) uint8, the colour of each mask value.
    """
    index, pixels = visible_points(xyz, to_camera, projection)
    points = np.empty(len(index), _LABELLED)
    points["xyz"] = xyz[index]
    return _label(points, pixels, segmentation, rgb_table)


def labelled_depths(
    depths_m: NDArray[np.float32],
    projection: Projection,
    segmentation: Segmentation,
    rgb_table: NDArray[np.uint8],
) -> NDArray[Any]:
    """The points of a depth image as in ``labelled_points``, row by row, in the camera's optical frame.

    Args:
        depths_m: (H, W), at the projection's size; only finite values above 0 are points.
        segmentation: of the same image, at any size.
        rgb_table: (256, 3) uint8, the colour of each mask value.
    """
    depth, rays = depths_m.ravel(), projection.rays
    pixels = np.flatnonzero((depth > 0) & (depth < np.inf) & np.isfinite(rays[0]))
    depth = depth[pixels]
    points = np.empty(len(pixels), _LABELLED)
    for axis in (0, 1):
        points["xyz"][:, axis] = rays[axis][pixels] * depth
    points["xyz"][:, 2] = depth
    return _label(points, pixels, segmentation.resized(projection.size), rgb_table)


def _label(
    points: NDArray[Any], pixels: NDArray[Any], segmentation: Segmentation, rgb_table: NDArray[np.uint8]
) -> NDArray[Any]:
    labels = segmentation.mask.ravel()[pixels]
    colours = rgb_table.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    points["rgb"] = colours[labels]
    points["label"] = labels
    points["confidence"] = segmentation.confidence.ravel()[pixels] * np.float32(1 / 255)
    return points
