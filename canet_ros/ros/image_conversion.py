# SPDX-License-Identifier: Apache-2.0
"""Converts pixels and points to rclpy messages."""

from __future__ import annotations

import array
import functools
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField

from canet_ros.messages.images import encode_compressed, image_fields
from canet_ros.messages.points import FIELDS


def image_message(pixels: NDArray[np.uint8], encoding: str, header: Any) -> Image:
    """A ``sensor_msgs/Image`` of (H, W, 3) or (H, W) uint8 pixels in ``bgr8``, ``rgb8`` or ``mono8``.

    Copies once, into the ``array.array`` that rclpy accepts unchecked (Humble checks bytes one by one), and once more
    if the pixels are not contiguous.

    Raises:
        ImageMessageError: the pixels are not such an array, or do not fit the encoding.
    """
    message = Image(header=header, **image_fields(pixels, encoding))
    message.data = _byte_array(pixels)
    return message


def compressed_message(
    pixels: NDArray[np.uint8], encoding: str, header: Any, codec: str, jpeg_quality: int = 80
) -> CompressedImage:
    """A ``sensor_msgs/CompressedImage`` of the pixels that ``image_message`` accepts; see ``encode_compressed``.

    Raises:
        ImageMessageError: the pixels do not fit the encoding, or cannot be encoded.
    """
    text, data = encode_compressed(pixels, encoding, codec, jpeg_quality)
    message = CompressedImage(header=header, format=text)
    message.data = _byte_array(data)
    return message


def points_message(points: NDArray[Any], header: Any) -> PointCloud2:
    """A ``sensor_msgs/PointCloud2`` of records of ``messages.points.FIELDS``: (n,), or (H, W) organized with NaN."""
    height, width = points.shape if points.ndim == 2 else (1, len(points))
    message = PointCloud2(header=header, height=height, width=width, is_bigendian=False, is_dense=height == 1)
    message.fields = [
        PointField(name=name, offset=offset, datatype=kind, count=1) for name, offset, kind in FIELDS
    ]
    message.point_step, message.row_step = points.itemsize, width * points.itemsize
    message.data = _byte_array(points.reshape(-1).view(np.uint8))
    return message


@functools.lru_cache(maxsize=64)
def message_class(msgtype: str) -> Any:
    """The class of ``package/msg/Name``; raises what the import of its package raises."""
    package, _, name = msgtype.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def new_message(msgtype: str, **fields: Any) -> Any:
    """A message of ``package/msg/Name``, for ``messages.results``."""
    values = {
        key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in fields.items()
    }
    return message_class(msgtype)(**values)


def _byte_array(pixels: NDArray[np.uint8]) -> array.array[int]:
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).data)
    return data
