# SPDX-License-Identifier: Apache-2.0
"""Converts results to rclpy messages."""

from __future__ import annotations

import array
import functools
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from canet_ros.messages.images import encode_compressed, image_fields


def image_message(pixels: NDArray[np.uint8], encoding: str, header: Any) -> Image:
    """A ``sensor_msgs/Image`` of (H, W, 3) or (H, W) uint8 pixels in ``bgr8``, ``rgb8`` or ``mono8``.

    Copies once, into the ``array.array`` that rclpy accepts unchecked (Humble checks bytes one by one), and once more
    if the pixels are not contiguous.
    """
    message = Image(header=header, **image_fields(pixels, encoding))
    message.data = _byte_array(pixels)
    return message


def compressed_message(
    pixels: NDArray[np.uint8], encoding: str, header: Any, codec: str, jpeg_quality: int = 80
) -> CompressedImage:
    """A ``sensor_msgs/CompressedImage`` of the pixels that ``image_message`` accepts; see ``encode_compressed``.

    Raises:
        ImageMessageError: the pixels cannot be encoded.
    """
    text, data = encode_compressed(pixels, encoding, codec, jpeg_quality)
    message = CompressedImage(header=header, format=text)
    message.data = _byte_array(data)
    return message


@functools.lru_cache(maxsize=64)
def message_class(msgtype: str) -> Any:
    """The class of ``package/msg/Name``; raises what the import of its package raises."""
    package, _, name = msgtype.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def new_message(msgtype: str, **fields: Any) -> Any:
    """A message of ``package/msg/Name``, for ``messages.results``."""
    return message_class(msgtype)(**{key: _as_field(value) for key, value in fields.items()})


def _as_field(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return _byte_array(value) if value.dtype == np.uint8 else value.tolist()


def _byte_array(pixels: NDArray[np.uint8]) -> array.array[int]:
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).data)
    return data
