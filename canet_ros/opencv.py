# SPDX-License-Identifier: Apache-2.0
"""OpenCV functions with complete types, uint8 in and out, and with exceptions for unreadable and truncated files."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.image_header import HeaderError, image_size

Pixels = NDArray[np.uint8]


class ImageFileError(ValueError):
    """A file that is not a readable image, or pixels that cannot be encoded; the message names it and the reason."""


def resize(image: Pixels, size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> Pixels:
    """Resize an image (H, W) or (H, W, channels) to (width, height)."""
    return cast(Pixels, cv2.resize(image, size, interpolation=interpolation))


def convert_color(image: Pixels, code: int) -> Pixels:
    """``code`` is one of ``cv2.COLOR_*``; raises cv2.error if it does not fit the image's shape."""
    return cast(Pixels, cv2.cvtColor(image, code))


def map_colors(levels: Pixels, colors: Pixels | int) -> Pixels:
    """Map levels (H, W) to colours (H, W, 3) by a table (256, 3) or one of ``cv2.COLORMAP_*``."""
    table = colors if isinstance(colors, int) else colors.reshape(256, 1, 3)
    return cast(Pixels, cv2.applyColorMap(levels, table))


def rotate(image: Pixels, code: int) -> Pixels:
    """``code`` is one of ``cv2.ROTATE_*``."""
    return cast(Pixels, cv2.rotate(image, code))


def look_up(levels: Pixels, table: Pixels) -> Pixels:
    """Map levels (H, W) by a table (256,)."""
    return cast(Pixels, cv2.LUT(levels, table))


def transform(image: Pixels, matrix: NDArray[np.float64]) -> Pixels:
    """Multiply every pixel's channels by a matrix (channels out, channels in + 1), rounded and saturated."""
    return cast(Pixels, cv2.transform(image, matrix))


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> Pixels:
    """Read an image file as (H, W, 3) BGR uint8, whatever its depth and channels, unless ``flags`` ask otherwise.

    Raises:
        ImageFileError: the file is not an image that OpenCV can read, or it is truncated or too large.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    if not data:
        raise ImageFileError(f"{path} is empty")
    if is_truncated(data):
        raise ImageFileError(f"{path} is truncated: the end of the image is missing")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise ImageFileError(f"{path} cannot be decoded: {_reason(error)}") from error
    if image is None:
        raise ImageFileError(f"{path} is not an image that OpenCV can read")
    return cast(Pixels, image)


def is_truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end. OpenCV 4 decodes half a JPEG without an error; the rest is grey."""
    if not data.startswith((b"\xff\xd8", b"\x89PNG\r\n\x1a\n")):
        return False
    try:
        image_size(data)
    except HeaderError:
        return True
    return False


def encode_image(image: Pixels, suffix: str) -> bytes:
    """Encode an image in the format of ``suffix`` (".png").

    Raises:
        ImageFileError: OpenCV cannot write this format, or not this shape in it.
    """
    try:
        succeeded, data = cv2.imencode(suffix, image)
    except cv2.error as error:
        raise ImageFileError(
            f"an image {image.shape} cannot be written as {suffix!r}: {_reason(error)}"
        ) from error
    if not succeeded:
        raise ImageFileError(f"an image {image.shape} cannot be written as {suffix!r}")
    return data.tobytes()


def _reason(error: Exception) -> str:
    if isinstance(error, cv2.error) and error.err:
        return " ".join(str(error.err).split())
    return str(error) or "not enough memory"


def in_color(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W) grey or (H, W, 3) BGR, uint8, as (H, W, 3) BGR; the same array if it is BGR already."""
    return convert_color(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


def require_array(image: object) -> None:
    """Raise TypeError for anything but an array."""
    if not isinstance(image, np.ndarray):
        hint = " (cv2.imread returns None for a file that it cannot read)" if image is None else ""
        kind = type(image).__name__
        raise TypeError(f"expected an image, (H, W, 3) BGR or (H, W) grey, uint8, got {kind}{hint}")


def bring_to_size(image: NDArray[np.uint8], place: NDArray[np.uint8]) -> None:
    """Write the image into ``place`` (h, w, 3), resized and in colour.

    Raises:
        TypeError: ``image`` is not an array.
        ValueError: it has another type or shape.
    """
    require_array(image)
    if image.dtype != np.uint8 or image.size == 0 or not (image.ndim == 2 or image.shape[2:] == (3,)):
        raise ValueError(
            f"expected a uint8 image (H, W, 3) BGR or (H, W) grey, got {image.dtype} {image.shape}"
        )
    height, width = place.shape[:2]
    image = in_color(image)
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        # Averaging 2x2 pixels is eight times as fast as averaging areas that are not whole pixels.
        half = image.shape[1] // 2, image.shape[0] // 2
        image = resize(image[: 2 * half[1], : 2 * half[0]], half, cv2.INTER_AREA)
    if image.shape == place.shape:
        place[:] = image
        return
    shrinks = image.shape[1] >= 2 * width or image.shape[0] >= 2 * height
    cv2.resize(image, (width, height), place, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
