# SPDX-License-Identifier: Apache-2.0
"""Perspective projection and rasterisation. Colour and class id are filled together, as four channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.simulation.appearance import Appearance
from canet_ros.simulation.world import VIEW_M, Placed, Street

NEAR_M = 0.4
LOW_DETAIL_FROM_M = 40.0
MIN_SIZE_PX = 1.8
SUBPIXEL_BITS = 3


@dataclass(frozen=True)
class Camera:
    """A forward-facing camera on the road; axes as in ROS optical frames: x right, y down, z forward.

    matrix: (3, 3) float64. s: metres driven. mirrored: the scene is mirrored left to right; traffic keeps right.
    """

    matrix: NDArray[np.float64]
    height_m: float
    s: float
    street: Street
    mirrored: bool

    def centre_line(
        self, ahead_m: NDArray[np.float32] | float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lateral offset of the centre line in metres, and its slope, at a distance ahead of the camera."""
        street = self.street
        turn = 2 * np.pi / street.bend_length_m
        angle = np.asarray(ahead_m) * turn + (self.s * turn + street.bend_phase) % (2 * np.pi)
        return np.asarray(street.bend_m * np.sin(angle)), np.asarray(street.bend_m * turn * np.cos(angle))

    def to_camera(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Transform road coordinates (n, 3), (x, y up, s ahead of the camera), to camera coordinates; metres."""
        offset, slope = self.centre_line(points[:, 2])
        here, heading = self.centre_line(0.0)
        along = points[:, 0] / np.sqrt(1 + slope**2)
        x, z = offset + along - here, points[:, 2] - along * slope
        cos = 1 / np.sqrt(1 + heading**2)
        sin = heading * cos
        right = cos * x - sin * z - self.street.camera_x_m
        return np.stack([self._sign * right, self.height_m - points[:, 1], sin * x + cos * z], axis=1).astype(
            np.float32
        )

    def turn(self, normals: NDArray[np.float32], ahead_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Transform normals (n, 3) of surfaces at these distances to camera coordinates."""
        angle = np.arctan(self.centre_line(0.0)[1]) - np.arctan(self.centre_line(ahead_m)[1])
        x = np.cos(angle) * normals[:, 0] - np.sin(angle) * normals[:, 2]
        z = np.sin(angle) * normals[:, 0] + np.cos(angle) * normals[:, 2]
        return np.stack([self._sign * x, -normals[:, 1], z], axis=1).astype(np.float32)

    def project(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project camera coordinates (n, 3) to pixels (n, 2); depths below NEAR_M count as NEAR_M."""
        depth = np.maximum(points[:, 2:], NEAR_M)
        focal = self.matrix[[0, 1], [0, 1]].astype(np.float32)
        pixels = points[:, :2] * focal / depth + self.matrix[:2, 2].astype(np.float32)
        # OpenCV takes corners as 32-bit fixed-point numbers.
        return np.asarray(np.clip(pixels, -16000, 16000), dtype=np.float32)

    @property
    def _sign(self) -> float:
        return -1.0 if self.mirrored else 1.0


def painters_order(objects: Iterable[Placed], camera: Camera) -> list[Placed]:
    """Visible objects, the farthest first; distant ones in low detail."""
    lane_x = camera.street.camera_x_m
    visible = []
    for placed in objects:
        (left, _, near), (right, _, far) = placed.solid.low, placed.solid.high
        near, far = near + placed.s - camera.s, far + placed.s - camera.s
        if far > NEAR_M and near < VIEW_M:
            solid = placed.solid.low_detail if near > LOW_DETAIL_FROM_M else placed.solid
            lateral = max(left + placed.x - lane_x, lane_x - right - placed.x)
            visible.append((near, far, lateral, Placed(solid, placed.x, placed.s)))
    visible.sort(key=lambda entry: -entry[1])
    return [entry[3] for entry in sorted(visible, key=cmp_to_key(_compare_depth))]


def _compare_depth(one: tuple[float, float, float, Placed], other: tuple[float, float, float, Placed]) -> int:
    if one[0] >= other[1]:
        return -1
    if other[0] >= one[1]:
        return 1
    # Side by side: the one closer to the camera's lane occludes the other.
    return (one[2] < other[2]) - (one[2] > other[2])


def paint(
    canvas: NDArray[np.uint8], camera: Camera, appearance: Appearance, objects: Sequence[Placed]
) -> None:
    """Paint objects, in the order given, into a (H, W, 4) canvas of blue, green, red and class id."""
    if not objects:
        return
    solids = [placed.solid for placed in objects]
    positions = np.array([(placed.x, 0, placed.s - camera.s) for placed in objects], dtype=np.float32)
    vertices = np.concatenate([solid.vertices for solid in solids])
    vertices = vertices + np.repeat(positions, [len(solid.vertices) for solid in solids], axis=0)
    surfaces = np.concatenate([solid.surfaces for solid in solids])
    ends = np.cumsum(surfaces["vertices"])
    starts = ends - surfaces["vertices"]
    points = camera.to_camera(vertices)
    pixels = camera.project(points)
    normals = camera.turn(surfaces["normal"], vertices[starts, 2])

    nearest, farthest = np.minimum.reduceat(points[:, 2], starts), np.maximum.reduceat(points[:, 2], starts)
    low, high = np.minimum.reduceat(pixels, starts), np.maximum.reduceat(pixels, starts)
    in_frame = np.all((high >= 0) & (low < canvas.shape[1::-1]), axis=1) & (farthest > NEAR_M)
    facing = surfaces["two_sided"] | (np.einsum("ij,ij->i", normals, points[starts]) < 0)
    large = surfaces["size_m"] * camera.matrix[0, 0] / np.maximum(nearest, NEAR_M) > MIN_SIZE_PX
    visible = np.flatnonzero(in_frame & facing & large)

    light = appearance.light(normals, surfaces["two_sided"], camera.mirrored)
    lit = appearance.haze(surfaces["colour"] * (light + (1 - light) * surfaces["glow"])[:, None], nearest)
    fills = np.concatenate([lit, surfaces["label"][:, None]], axis=1)

    fixed = np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)
    columns = (starts, ends, surfaces["polygons"], surfaces["opacity"], nearest, fills)
    for start, end, count, opacity, depth, fill in zip(*(c[visible].tolist() for c in columns), strict=True):
        outlines = list(fixed[start:end].reshape(count, -1, 2))
        if depth < NEAR_M:
            clipped = [_clipped(camera, corners) for corners in points[start:end].reshape(count, -1, 3)]
            outlines = [outline for outline in clipped if len(outline) > 2]
        if opacity < 1 and outlines:
            _blend_polygons(canvas, outlines, fill, opacity)
        else:
            cv2.fillPoly(canvas, outlines, fill, cv2.LINE_8, SUBPIXEL_BITS)


def _clipped(camera: Camera, corners: NDArray[np.float32]) -> NDArray[np.int32]:
    """Outline in the image of a polygon (n, 3), clipped at the near plane."""
    front = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if a[2] >= NEAR_M:
            front.append(a)
        if (a[2] < NEAR_M) != (b[2] < NEAR_M):
            front.append(a + (b - a) * ((NEAR_M - a[2]) / (b[2] - a[2])))
    pixels = camera.project(np.reshape(front, (-1, 3)).astype(np.float32))
    return np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _blend_polygons(
    canvas: NDArray[np.uint8], outlines: list[NDArray[np.int32]], fill: list[float], opacity: float
) -> None:
    corners = np.concatenate(outlines) >> SUBPIXEL_BITS
    left, top = np.maximum(corners.min(axis=0) - 1, 0).tolist()
    right, bottom = np.maximum(corners.max(axis=0) + 2, 0).tolist()
    part = canvas[top:bottom, left:right]
    mask = np.zeros(part.shape[:2], np.uint8)
    corner = np.array([left, top], dtype=np.int32) << SUBPIXEL_BITS
    for outline in outlines:
        cv2.fillPoly(mask, [outline - corner], 255, cv2.LINE_8, SUBPIXEL_BITS)
    blended = cv2.addWeighted(part, 1 - opacity, np.full_like(part, fill), opacity, 0)
    blended[..., 3] = int(fill[3])
    cv2.copyTo(blended, mask, part)


def paint_bonnet(canvas: NDArray[np.uint8], colour: Sequence[float], label: int) -> None:
    """Paint the bonnet of the camera's car at the bottom edge of a (H, W, 4) canvas."""
    height, width = canvas.shape[:2]
    u = np.linspace(-0.1, 1.1, 25)
    for drop, factor in ((0.0, 1.0), (0.012, 0.55)):
        rim = np.stack([u, 0.945 + drop + 0.22 * (u - 0.5) ** 2], axis=1)
        outline = np.concatenate([rim, [(1.1, 1.2), (-0.1, 1.2)]]) * [width, height]
        cv2.fillPoly(
            canvas, [np.rint(outline).astype(np.int32)], [*(channel * factor for channel in colour), label]
        )
