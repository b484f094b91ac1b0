# SPDX-License-Identifier: Apache-2.0
"""OpenCV with the types that its own hints leave open: uint8 pictures in, uint8 pictures out.

What OpenCV does not say, or says on stderr, is an exception here: a file that is no picture, one that is cut off.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.picture_header import HeaderError, image_size

Pixels = NDArray[np.uint8]


class ImageFileError(ValueError):
    """A file or data that is no picture, or one that cannot be encoded; the message says which and why."""


def resize(picture: Pixels, size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> Pixels:
    """A picture (H, W) or (H, W, channels) at another (width, height)."""
    return cast(Pixels, cv2.resize(picture, size, interpolation=interpolation))


def convert_color(picture: Pixels, code: int) -> Pixels:
    """``code`` is one of ``cv2.COLOR_*``; raises cv2.error where the picture's shape does not fit it."""
    return cast(Pixels, cv2.cvtColor(picture, code))


def map_colors(levels: Pixels, colors: Pixels | int) -> Pixels:
    """(H, W) to (H, W, 3): a table (256, 3), or one of ``cv2.COLORMAP_*``."""
    table = colors if isinstance(colors, int) else colors.reshape(256, 1, 3)
    return cast(Pixels, cv2.applyColorMap(levels, table))


def rotate(picture: Pixels, code: int) -> Pixels:
    """``code`` is one of ``cv2.ROTATE_*``."""
    return cast(Pixels, cv2.rotate(picture, code))


def look_up(levels: Pixels, table: Pixels, place: Pixels) -> Pixels:
    """(H, W) by a table (256,), written into ``place`` (H, W), which is returned."""
    return cast(Pixels, cv2.LUT(levels, table, place))


def transform(picture: Pixels, matrix: NDArray[np.float64]) -> Pixels:
    """Every pixel's channels times a matrix (channels out, channels in + 1), rounded and saturated."""
    return cast(Pixels, cv2.transform(picture, matrix))


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> Pixels:
    """The picture in a file: (H, W, 3) BGR uint8, whatever its own bits and channels, unless ``flags`` say otherwise.

    Raises:
        ImageFileError: it is no picture that OpenCV can read, is cut off, or is too large.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    if not data:
        raise ImageFileError(f"{path} is empty")
    if is_cut_off(data):
        raise ImageFileError(f"{path} is cut off: the end of the picture is missing")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise ImageFileError(f"{path} cannot be decoded: {_reason(error)}") from error
    if picture is None:
        raise ImageFileError(f"{path} is no picture that OpenCV can read")
    return cast(Pixels, picture)


def is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: OpenCV 4 decodes half a JPEG to a picture that is half grey."""
    if not data.startswith((b"\xff\xd8", b"\x89PNG\r\n\x1a\n")):
        return False
    try:
        image_size(data)
    except HeaderError:
        return True
    return False


def encode_image(picture: Pixels, suffix: str) -> bytes:
    """The file of a picture in the format of ``suffix`` (".png").

    Raises:
        ImageFileError: OpenCV does not write such files, or not of such a picture.
    """
    try:
        done, data = cv2.imencode(suffix, picture)
    except cv2.error as error:
        raise ImageFileError(
            f"a picture {picture.shape} cannot be written as {suffix!r}: {_reason(error)}"
        ) from error
    if not done:
        raise ImageFileError(f"a picture {picture.shape} cannot be written as {suffix!r}")
    return data.tobytes()


def _reason(error: Exception) -> str:
    if isinstance(error, cv2.error) and error.err:
        return " ".join(str(error.err).split())
    return str(error) or "not enough memory"
