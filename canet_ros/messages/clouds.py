# SPDX-License-Identifier: Apache-2.0
"""Reads the points of clouds and the depths of depth images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.messages.images import row_stride

Points = NDArray[np.float32]  # (n, 3), m

# NumPy types by the datatypes of sensor_msgs/PointField.
_DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
MAX_POINTS = 10_000_000
# By the depth encodings of sensor_msgs/Image: NumPy type, and unit in m. Old drivers send mono16.
_DEPTHS = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}


class CloudError(ValueError):
    """A cloud, depth image or camera info that cannot be used; the message says what is wrong and what is expected."""


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
    check_depth_size(width, height)
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


def check_depth_size(width: int, height: int) -> None:
    """Raise CloudError for a depth image without pixels or with too many."""
    if not 0 < width * height <= MAX_POINTS:
        raise CloudError(f"a depth image of {width}x{height}: expected 1 to {MAX_POINTS} pixels")
