# SPDX-License-Identifier: Apache-2.0
"""Label the points of a cloud or a depth image with the class of their pixel in a camera image."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.formats import Resolution
from canet_ros.messages.clouds import CloudError, Points, cloud_xyz, depth_values
from canet_ros.messages.compressed_depth import compressed_depth_values
from canet_ros.messages.projection import Projection, camera_projection
from canet_ros.model.class_table import UNLABELLED
from canet_ros.pipeline.segmentation import Segmentation

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
# A point that is not there, or not seen.
_NOTHING = np.array(((np.nan,) * 3, 0, UNLABELLED, 0.0), _LABELLED)
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
    with np.errstate(all="ignore"):  # comparisons with NaN are false
        depth = xyz @ rotation[2] + move[2]
        index = np.flatnonzero((depth > _NEAREST_M) & (depth < np.inf))
        depth, in_front = depth[index], xyz[index]
        x, y = (in_front @ rotation[axis] + move[axis] for axis in (0, 1))
    pixels = projection.flat_pixels(x, y, depth)
    inside = np.flatnonzero(pixels >= 0)
    depth, index, pixels = depth[inside], index[inside], pixels[inside]
    rows, columns = np.divmod(pixels, np.int32(width))
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
    return index[visible], pixels[visible]


@dataclass(frozen=True, eq=False)
class LabelledPoints:
    """The points of a cloud, with the classes of those that the camera sees.

    Attributes:
        seen: (n,) records of ``FIELDS``, little endian, in the cloud's order and frame.
        pixels: (n,) where each is seen: index into the flat mask.
        size: of the mask, (width, height).
        xyz: (m, 3), all points of the cloud.
        index: (n,) which of ``xyz`` are the seen ones.
    """

    seen: NDArray[Any]
    pixels: NDArray[Any]
    size: Resolution
    xyz: Points
    index: NDArray[Any]

    def of(self, classes: NDArray[np.bool_] | None) -> NDArray[Any]:
        """Records of the points of some classes; those that the camera does not see are unlabelled and come last.

        Args:
            classes: (256,) whether points of this mask value are taken; None: all that the camera sees.
        """
        if classes is None:
            return self.seen
        chosen = np.flatnonzero(classes[self.seen["label"]])
        unseen = self._unseen if classes[UNLABELLED] else np.empty(0, np.intp)
        points = _nowhere(len(chosen) + len(unseen))
        _as_items(self.seen).take(chosen, out=_as_items(points)[: len(chosen)])
        points["xyz"][len(chosen) :] = self.xyz.take(unseen, 0)
        return points

    def organized(self, classes: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        """The seen points (of some classes) at their pixels, (height, width) records; NaN where there is none.

        Of several points at one pixel, the last in the cloud is taken.
        """
        seen, pixels = self.seen, self.pixels
        if classes is not None:
            chosen = np.flatnonzero(classes[seen["label"]])
            seen, pixels = np.take(seen, chosen), pixels[chosen]
        width, height = self.size
        image = _nowhere(width * height)
        _as_items(image)[pixels] = _as_items(seen)
        return image.reshape(height, width)

    @functools.cached_property
    def _unseen(self) -> NDArray[np.intp]:
        """Indices of the measured points that the camera does not see."""
        with np.errstate(all="ignore"):
            measured = np.isfinite(
                self.xyz @ np.ones(3, np.float32)
            )  # a tenth of the time of isfinite().all(1)
        measured[self.index] = False
        return np.flatnonzero(measured)


def label_message(
    message: Any,
    to_camera: NDArray[np.float64] | None,
    info: Any,
    image_shape: tuple[int, ...],
    segmentation: Segmentation,
    rgb_table: NDArray[np.uint8],
) -> LabelledPoints:
    """Label the points of a ``PointCloud2`` or of a depth image (``Image``, or ``CompressedImage`` of compressedDepth).

    Args:
        to_camera: (3, 4) [R|t] from the cloud's frame to the camera's optical frame; None: it is a depth image, aligned
            with the camera's image.
        info: of the camera, ``sensor_msgs/CameraInfo``.
        image_shape: height and width of the camera's image.
        segmentation: at the size of the results.
        rgb_table: (256, 3) uint8, the colour of each mask value.

    Raises:
        CloudError: the message or the calibration cannot be used.
    """
    if to_camera is not None:
        projection = camera_projection(info, segmentation.mask.shape[::-1])  # type: ignore[arg-type]
        return labelled_points(cloud_xyz(message), to_camera, projection, segmentation, rgb_table)
    depths_m = compressed_depth_values(message) if hasattr(message, "format") else depth_values(message)
    (height, width), (image_height, image_width) = depths_m.shape, image_shape[:2]
    if abs(width * image_height - height * image_width) > max(image_width, image_height):
        raise CloudError(
            f"depth image of {width}x{height} is not aligned with images of {image_width}x{image_height}"
        )
    return labelled_depths(depths_m, camera_projection(info, (width, height)), segmentation, rgb_table)


def labelled_points(
    xyz: Points,
    to_camera: NDArray[np.float64],
    projection: Projection,
    segmentation: Segmentation,
    rgb_table: NDArray[np.uint8],
) -> LabelledPoints:
    """Label the points visible to the camera.

    Args:
        segmentation: of the projection's image.
        rgb_table: (256, 3) uint8, the colour of each mask value.
    """
    index, pixels = visible_points(xyz, to_camera, projection)
    points = _labelled(xyz[index], pixels, segmentation, rgb_table)
    return LabelledPoints(points, pixels, projection.size, xyz, index)


def labelled_depths(
    depths_m: NDArray[np.float32],
    projection: Projection,
    segmentation: Segmentation,
    rgb_table: NDArray[np.uint8],
) -> LabelledPoints:
    """Label the points of a depth image, row by row, in the camera's optical frame.

    Args:
        depths_m: (H, W), at the projection's size; only finite values above 0 are points.
        segmentation: of the same image, at any size.
        rgb_table: (256, 3) uint8, the colour of each mask value.
    """
    depth, rays = depths_m.ravel(), projection.rays
    pixels = np.flatnonzero((depth > 0) & (depth < np.inf) & np.isfinite(rays[0]))
    depth = depth[pixels]
    xyz = np.stack([rays[0][pixels] * depth, rays[1][pixels] * depth, depth], 1)
    points = _labelled(xyz, pixels, segmentation.resized(projection.size), rgb_table)
    height, width = segmentation.mask.shape
    if projection.size != (width, height):
        rows, columns = np.divmod(pixels, projection.size[0])
        scale = height / projection.size[1], width / projection.size[0]
        rows, columns = (((at + 0.5) * k).astype(np.intp) for at, k in zip((rows, columns), scale))
        pixels = rows * width + columns
    everything = np.empty((0, 3), np.float32), np.empty(0, np.intp)
    return LabelledPoints(points, pixels, (width, height), *everything)


def _labelled(
    xyz: Points, pixels: NDArray[Any], segmentation: Segmentation, rgb_table: NDArray[np.uint8]
) -> NDArray[Any]:
    points = np.empty(len(xyz), _LABELLED)
    labels = segmentation.mask.ravel()[pixels]
    colours = rgb_table.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    points["xyz"], points["rgb"] = xyz, colours[labels]
    points["label"] = labels
    points["confidence"] = segmentation.confidence.ravel()[pixels] * np.float32(1 / 255)
    return points


# NumPy copies records by their fields, 20 times as slow as items of their size.
def _as_items(points: NDArray[Any]) -> NDArray[Any]:
    return points.view(f"V{_LABELLED.itemsize}")


def _nowhere(count: int) -> NDArray[Any]:
    """Records of points that are neither measured nor seen."""
    points = np.empty(count, _LABELLED)
    points.view(np.uint32).reshape(count, _LABELLED.itemsize // 4)[:] = _NOTHING.reshape(1).view(np.uint32)
    return points
