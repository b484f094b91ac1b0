# SPDX-License-Identifier: Apache-2.0
"""Label the points of a cloud or a depth image with the class of their pixel in a camera image."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.messages.clouds import Points
from canet_ros.messages.projection import Projection
from canet_ros.pipeline.segmenter import Segmentation

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
_NEAREST_M = 0.05
# Cell of the depth buffer, in pixels of an image 1280 wide. A point may be farther than the nearest in its cell by a
# factor and a distance, because distant ground spans a large depth in few rows.
_CELL_PX, _REFERENCE_WIDTH_PX = 8, 1280
_OCCLUSION_FACTOR, _OCCLUSION_M = 1.3, 0.5


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
