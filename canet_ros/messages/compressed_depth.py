# SPDX-License-Identifier: Apache-2.0
"""Decodes depth images as compressed_depth_image_transport of image_transport_plugins sends them.

A message holds a header of 12 bytes (format, and the quantisation A and B of 32FC1), then a 16-bit PNG or RVL
(Wilson, "Fast Lossless Depth Image Compression", 2017): mm of 16UC1, or A / depth + B of 32FC1.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.image_header import HeaderError, image_size
from canet_ros.messages.clouds import CloudError, check_depth_size

TRANSPORT = "compressedDepth"  # last part of the topic, as image_transport names it

_HEADER = struct.Struct("<iff")
_RVL_SIZE = struct.Struct("<II")  # width, height
# "16UC1; compressedDepth png"; old senders leave out the codec, or everything after the encoding. They mean PNG.
_FORMAT = re.compile(r"(16UC1|mono16|32FC1)\s*(?:;\s*compressedDepth\s*(png|rvl|)\s*)?")
_MAX_NIBBLES = 8  # of a number below 2**24, which MAX_POINTS is


def compressed_depth_values(message: Any) -> NDArray[np.float32]:
    """Depth of every pixel of a ``sensor_msgs/CompressedImage``, (H, W) in m; 0, NaN and infinities: no point.

    Raises:
        CloudError: the format is unknown, or the data is damaged or too large.
    """
    match = _FORMAT.fullmatch(message.format.strip())
    if match is None:
        raise CloudError(
            f"a compressed depth image in {message.format[:64]!r}: expected 16UC1 or 32FC1, then "
            "'; compressedDepth png' or '; compressedDepth rvl'"
        )
    encoding, codec = match.groups()
    data = bytes(message.data)
    if len(data) <= _HEADER.size:
        raise CloudError(f"a compressed depth image of {len(data)} bytes is damaged: its header has 12")
    stored = (_decode_rvl if codec == "rvl" else _decode_png)(data[_HEADER.size :])
    if encoding != "32FC1":
        return stored * np.float32(1e-3)
    _, a, b = _HEADER.unpack_from(data)
    if not (np.isfinite(b) and 0 < a < np.inf):
        raise CloudError(f"a compressed depth image is damaged: its quantisation is A={a:g}, B={b:g}")
    with np.errstate(divide="ignore"):
        depths = np.float32(a) / (stored - np.float32(b))
    depths[stored == 0] = np.nan
    return depths


def _decode_png(data: bytes) -> NDArray[np.uint16]:
    try:
        width, height = image_size(data)
        check_depth_size(width, height)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (HeaderError, cv2.error) as error:
        raise CloudError(f"a compressed depth image is damaged: {error}") from error
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        raise CloudError("a compressed depth image is damaged: its data is not a grey PNG of 16 bits")
    return image  # type: ignore[return-value]


def _decode_rvl(data: bytes) -> NDArray[np.uint16]:
    """RVL: numbers of zeros and of other pixels by turns, the latter followed by the differences of their values."""
    if len(data) < _RVL_SIZE.size:
        raise CloudError(f"a compressed depth image is damaged: RVL of {len(data)} bytes")
    width, height = _RVL_SIZE.unpack_from(data)
    check_depth_size(width, height)
    numbers = _variable_length_numbers(data[_RVL_SIZE.size :])
    items, end = numbers.data, len(numbers) - 1
    starts = []
    at = pixels = 0
    while pixels < width * height and at < end:
        starts.append(at)
        others = items[at + 1]
        pixels += items[at] + others
        at += 2 + others
    if pixels != width * height or at > len(numbers):
        raise CloudError(f"a compressed depth image is damaged: its RVL does not fit {width}x{height} pixels")
    runs = numbers[np.add.outer(starts, [0, 1])]
    is_difference = np.ones(at, np.bool_)
    is_difference[np.add.outer(starts, [0, 1])] = False
    differences = numbers[:at][is_difference]
    values = np.cumsum((differences >> 1) ^ -(differences & 1))
    image = np.zeros(width * height, np.uint16)
    image[np.repeat(np.tile([False, True], len(runs)), runs.ravel())] = values.astype(np.uint16)
    return image.reshape(height, width)


def _variable_length_numbers(data: bytes) -> NDArray[np.int32]:
    """Numbers of 3 bits a nibble, lowest first; bit 3: more follow. Nibbles are in words of 32 bits, highest first."""
    words = np.frombuffer(data, "<u4", len(data) // 4).byteswap().view(np.uint8)
    nibbles = np.empty(2 * len(words), np.uint8)
    np.right_shift(words, 4, out=nibbles[::2])
    np.bitwise_and(words, 15, out=nibbles[1::2])
    ends = np.flatnonzero(nibbles < 8) + 1
    nibbles &= 7
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    lengths = (ends - starts).astype(np.int32)
    numbers: NDArray[np.int32] = nibbles[starts].astype(np.int32)
    longer = np.flatnonzero(lengths > 1)
    for place in range(1, _MAX_NIBBLES):
        numbers[longer] |= nibbles[starts[longer] + place].astype(np.int32) << 3 * place
        longer = longer[lengths[longer] > place + 1]
    if len(longer):
        raise CloudError("a compressed depth image is damaged: RVL with a number of more than 24 bits")
    return numbers
