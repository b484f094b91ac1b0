# SPDX-License-Identifier: Apache-2.0
"""Projection between a camera's optical frame and the pixels of its image.

Axes are those of ROS optical frames (REP 103): x right, y down, z forward. Pixel centres have integer coordinates, as
in ``sensor_msgs/CameraInfo``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.messages.clouds import CloudError

Floats = NDArray[np.float32]

# Undistortion of a pixel: stop below a change of 1e-8, or after 40 iterations.
_UNDISTORT_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-8)
_PINHOLE = ("plumb_bob", "rational_polynomial", "")
_FISHEYE = ("equidistant", "fisheye")


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

    def pixels(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Columns and rows of rays, given their x/z and y/z within ``bounds``."""
        if self.distortion.any():
            x, y = self._distort_fisheye(x, y) if self.fisheye else self._distort(x, y)
        (fx, skew, cx), (_, fy, cy) = self.matrix[:2].astype(np.float32)
        return x * fx + (y * skew + cx if skew else cx), y * fy + cy

    def flat_pixels(self, x: Floats, y: Floats, depth: Floats) -> NDArray[np.int32]:
        """Flat index of the pixel that shows each point of the optical frame, in m; -1: none does."""
        width, height = self.size
        (x_low, y_low), (x_high, y_high) = self.bounds
        with np.errstate(all="ignore"):  # comparisons with NaN are false
            x, y = x / depth, y / depth
            inside = (depth > 0) & (x >= x_low) & (x <= x_high) & (y >= y_low) & (y <= y_high)
            columns, rows = (np.floor(plane + np.float32(0.5)) for plane in self.pixels(x, y))
            inside &= (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        columns, rows = (np.where(inside, plane, 0).astype(np.int32) for plane in (columns, rows))
        return np.where(inside, rows * np.int32(width) + columns, np.int32(-1))

    def _distort(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
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

    def _distort_fisheye(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
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
        raise CloudError("the camera is not calibrated: its camera_info has no size or an empty K")
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
