# SPDX-License-Identifier: Apache-2.0
"""Decode camera messages to pixels, and encode pixels for messages.

Pixels are (H, W, 3) BGR or (H, W) grey, uint8, as ``Segmenter`` takes them. All encodings that cv_bridge converts to
colour are converted here from the message's buffer, because cv_bridge breaks when NumPy's version changes. A message is
any object with the fields of its definition, from rclpy or rosbags.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.image_header import HeaderError, image_size, is_tiff
from canet_ros.image_transports import COMPRESSED_IMAGE, DEPTH_ENCODINGS, transport_content
from canet_ros.opencv import Pixels, convert_color, transform

# Encodings of 8 and 16 bits without the number: channels, and OpenCV's conversion to BGR (None: BGR or grey).
_COLORS = {
    "bgr": (3, None),
    "rgb": (3, cv2.COLOR_RGB2BGR),
    "bgra": (4, cv2.COLOR_BGRA2BGR),
    "rgba": (4, cv2.COLOR_RGBA2BGR),
    "mono": (1, None),
    # ROS names a Bayer pattern by its first pixels, OpenCV by the second and third pixel of the second row.
    "bayer_rggb": (1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2BGR),
}
# By the encodings of sensor_msgs/image_encodings.hpp: bytes per channel, channels, conversion.
_PACKED: dict[str, tuple[int, int, int | None]] = {
    **{f"{name}{8 * size}": (size, *color) for name, color in _COLORS.items() for size in (1, 2)},
    "8UC1": (1, 1, None),
    "8UC3": (1, 3, None),
    "8UC4": (1, 4, cv2.COLOR_BGRA2BGR),
    "16UC3": (2, 3, None),
    "16UC4": (2, 4, cv2.COLOR_BGRA2BGR),
    "uyvy": (1, 2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422": (1, 2, cv2.COLOR_YUV2BGR_UYVY),
    "yuyv": (1, 2, cv2.COLOR_YUV2BGR_YUYV),
    "yuv422_yuy2": (1, 2, cv2.COLOR_YUV2BGR_YUYV),
}
# A Y plane with a chroma plane below it.
_PLANAR = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}
ENCODINGS = (*_PACKED, *_PLANAR, "nv24")
_LOWER_CASE_ENCODINGS = {name.lower() for name in _PACKED}

# (Y, U, V, 1) to BGR by ITU-R BT.601 in studio range, the conversion of OpenCV for the other YUV encodings.
_BT601_YUV_TO_BGR = np.array(
    [[1.164, 2.018, 0.0, -276.928], [1.164, -0.391, -0.813, 135.488], [1.164, 0.0, 1.596, -222.912]]
)


class ImageMessageError(ValueError):
    """A message that cannot be decoded to an image; the message says what is wrong and what is expected."""


MAX_PIXELS = 100_000_000  # default of the node's parameter max_pixels
_MAX_ENCODING_LENGTH = 64
_PAGE_BYTES = 4096
# Rows of a mask mostly repeat the row above: half of the bytes in the same time. Older OpenCV lacks the option.
_PNG_OPTIONS = (
    [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []
)


def decode_image(message: Any, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a ``sensor_msgs/Image``: (H, W, 3) BGR, or (H, W) for mono and single-channel encodings.

    bgr8, 8UC3, mono8 and 8UC1 are views of the message, also with row padding; other encodings cost a pass over the
    pixels. 16-bit channels are reduced to their high byte, in the byte order of ``is_bigendian``. nv12, nv21 and nv24
    have their chroma below the Y plane, in rows of the same stride (nv24: two rows of chroma per row of Y), and
    ``height`` is that of the image. A wrong ``step`` is corrected if the length of the data is unambiguous, see
    ``row_stride``.

    Raises:
        ImageMessageError: unknown encoding, depth, zero size, more than ``max_pixels``, or contradictory sizes.
    """
    encoding, width, height = message.encoding, message.width, message.height
    if len(message.data) >= width * height:  # else the error is about the length of the data
        check_size(width, height, max_pixels)
    if encoding in _PACKED:
        return _packed(message, *_PACKED[encoding])
    if encoding in _PLANAR:
        _require_even(message, "width", "height")
        return _convert(_rows(message, width, height * 3 // 2), _PLANAR[encoding], encoding)
    if encoding == "nv24":
        luma = _rows(message, width, height * 3)[:height]
        stride = luma.strides[0]
        chroma: Pixels = np.ndarray(
            (height, width, 2), np.uint8, message.data, height * stride, (2 * stride, 2, 1)
        )
        return transform(np.dstack((luma, chroma)), _BT601_YUV_TO_BGR)
    if encoding in DEPTH_ENCODINGS:
        raise ImageMessageError(_depth_problem(encoding))
    return _by_cv_bridge(message)


def _by_cv_bridge(message: Any) -> Pixels:
    """Decode an unknown encoding with cv_bridge if it is installed, so that encodings added to ROS later work."""
    try:
        pixels = importlib.import_module("cv_bridge").CvBridge().imgmsg_to_cv2(message, "bgr8")
    except Exception as error:  # not installed, built for another NumPy, or the encoding is unknown to it
        encoding = repr(message.encoding[:_MAX_ENCODING_LENGTH])
        raise ImageMessageError(
            f"image encoding {encoding} is not supported; expected one of {', '.join(ENCODINGS)}; "
            f"cv_bridge: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    return np.asarray(pixels, np.uint8)


def decode_compressed(message: Any, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a ``sensor_msgs/CompressedImage`` (JPEG, PNG or TIFF): (H, W, 3) BGR or (H, W) grey.

    The order of channels or the mosaic that the sender stored is taken into account, see ``_stored_encoding``.
    Orientation tags are ignored, as in image_transport's subscriber. 16-bit channels are reduced to their high byte.

    Raises:
        ImageMessageError: the data is empty, truncated, depth, video or not an image, or larger than ``max_pixels``.
    """
    data = np.frombuffer(message.data, np.uint8)
    source = message.format.partition(";")[0].strip()
    if source in DEPTH_ENCODINGS:
        raise ImageMessageError(_depth_problem(source))
    if data.size == 0:
        raise ImageMessageError("compressed image without data")
    format_text = message.format[:_MAX_ENCODING_LENGTH]
    described = f"{data.size} bytes with format {format_text!r}"
    file = data.tobytes()
    try:
        width, height = image_size(file)
    except HeaderError as error:
        content = transport_content(COMPRESSED_IMAGE, format_text=format_text)
        if content:
            raise ImageMessageError(
                f"{described} contain {content}: image_transport's republish node can convert them to images"
            ) from None
        raise ImageMessageError(f"{described} cannot be decoded: {error}") from None
    check_size(width, height, max_pixels)
    try:
        pixels: Any = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError):
        pixels = None
    if pixels is None:
        raise ImageMessageError(f"{described} cannot be decoded")
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageMessageError(f"compressed image of {pixels.dtype} pixels: expected unsigned 8 or 16 bits")
    stored = _stored_encoding(format_text, is_tiff(file))
    if pixels.ndim == 2:
        stored = stored if stored in _PACKED and stored.startswith("bayer_") else "mono8"
    else:
        stored = f"{'rgb' if stored.startswith('rgb') else 'bgr'}{'a' if pixels.shape[2] == 4 else ''}8"
    code = _PACKED[stored][2]
    return pixels if code is None else _convert(pixels, code, format_text)


def _stored_encoding(format_text: str, tiff: bool) -> str:
    """Encoding, in lower case, of the pixels that OpenCV decodes; empty: BGR or grey as in the file.

    image_transport's compressed publisher writes ``SOURCE; CODEC compressed STORED``, where SOURCE is the camera's
    encoding and STORED the one passed to OpenCV. It omits STORED if it passed the pixels of the message unchanged, even
    if they are rgb8 or a mosaic:

    ==== ================================== ==========================================
    ..   colour (rgb8, bgra16, yuv422)      mono, Bayer, 8UC3 and the like
    ==== ================================== ==========================================
    JPEG ``bgr8``                           ``mono8``; SOURCE, with jpeg_compress_bayer; none in ROS 1
    PNG  ``bgr8``, ``bgr16``, ``bgra8``     none
    TIFF none                               none
    ==== ================================== ==========================================

    Its own subscriber treats colours without "compressed bgr" as RGB, which swaps red and blue of a bgr8 TIFF; this
    function does not. Other senders omit STORED for JPEG and PNG with colours as in the file.
    """
    source, separator, rest = format_text.lower().partition(";")
    if not separator:
        return ""
    named: list[str] = [word for word in re.findall(r"\w+", rest) if word in _LOWER_CASE_ENCODINGS]
    if named:
        return named[0]
    source = source.strip()
    return "" if source.startswith(("rgb", "bgr")) and not tiff else source


def image_fields(pixels: NDArray[np.uint8], encoding: str) -> dict[str, Any]:
    """Fields of a ``sensor_msgs/Image``, except header and data, for uint8 pixels.

    Args:
        pixels: (H, W, 3) for ``bgr8`` and ``rgb8``, (H, W) for ``mono8``.
    """
    height, width = pixels.shape[:2]
    step = pixels.size // height
    return {"height": height, "width": width, "encoding": encoding, "is_bigendian": 0, "step": step}


def encode_compressed(
    pixels: NDArray[np.uint8], encoding: str, codec: str, jpeg_quality: int = 80
) -> tuple[str, NDArray[np.uint8]]:
    """Format and data of a ``sensor_msgs/CompressedImage``, for pixels as in ``image_fields``.

    Args:
        codec: ``png`` (lossless) or ``jpeg``.
        jpeg_quality: 1..100.

    Raises:
        ImageMessageError: the pixels cannot be encoded.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if codec == "jpeg" else _PNG_OPTIONS
    if encoding == "rgb8":
        pixels = _convert(pixels, cv2.COLOR_RGB2BGR, encoding)
    try:
        data: NDArray[np.uint8] = cv2.imencode(f".{codec}", pixels, options)[1]  # type: ignore[assignment]
    except cv2.error as error:
        raise ImageMessageError(f"cannot encode {encoding} {pixels.shape} as {codec}: {error.err}") from error
    stored = "bgr8" if pixels.ndim == 3 else "mono8" if codec == "jpeg" else ""
    return f"{encoding}; {codec} compressed {stored}", data


def _packed(message: Any, channel_bytes: int, channels: int, code: int | None) -> Pixels:
    if channels == 2:
        _require_even(message, "width")
    rows = _rows(message, message.width * channels * channel_bytes, message.height)
    if channel_bytes == 2:
        words = np.ascontiguousarray(rows).view("<u2")
        rows = (words if message.is_bigendian else words >> 8).astype(np.uint8)
    pixels = rows if channels == 1 else rows.reshape(message.height, message.width, channels)
    return pixels if code is None else _convert(pixels, code, message.encoding)


def row_stride(step: int, row_bytes: int, rows: int, length: int) -> int | None:
    """Bytes from one row to the next; None if the sizes of the image contradict each other.

    Some drivers send a ``step`` of 0, in pixels, or of the whole image, so rows without padding that fill the data
    exactly take precedence over ``step``. The last row may lack its padding, and may be followed by less than a row or
    a page of memory, or by whole rows. More data than that suggests rows of another size.

    Args:
        row_bytes: bytes of the pixels of a row.
        length: bytes of the data.
    """
    if length == rows * row_bytes:
        return row_bytes
    excess = length - rows * step
    if (
        step >= row_bytes
        and length >= (rows - 1) * step + row_bytes
        and (excess < max(step, _PAGE_BYTES) or excess % step == 0)
    ):
        return step
    return None


def _rows(message: Any, row_bytes: int, row_count: int) -> Pixels:
    """Rows without padding, (row_count, row_bytes), as a view of the message."""
    stride = row_stride(message.step, row_bytes, row_count, len(message.data))
    if stride is None:
        raise ImageMessageError(
            f"step {message.step} and data of {len(message.data)} bytes do not fit {message.width}x{message.height} "
            f"{message.encoding}: {row_count} rows of {row_bytes} bytes take {row_count * row_bytes}"
        )
    rows: Pixels = np.ndarray((row_count, row_bytes), np.uint8, message.data, strides=(stride, 1))
    return rows


def _depth_problem(encoding: str) -> str:
    return (
        f"{encoding} is an encoding of depth (REP 118), not of a camera image: pass raw depth images to the node as "
        "depth_topics; a camera with one 16-bit grey channel must send mono16"
    )


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageMessageError for an image of zero size or of more than ``max_pixels``."""
    if width == 0 or height == 0:
        raise ImageMessageError(f"image of zero size: width {width}, height {height}")
    if width * height > max_pixels:
        raise ImageMessageError(
            f"image of {width}x{height} pixels is larger than max_pixels {max_pixels} allows"
        )


def _require_even(message: Any, *sides: str) -> None:
    for side in sides:
        if getattr(message, side) % 2:
            raise ImageMessageError(f"{message.encoding} needs an even {side}, not {getattr(message, side)}")


def _convert(pixels: Pixels, code: int, encoding: str) -> Pixels:
    try:
        return convert_color(pixels, code)
    except cv2.error as error:
        raise ImageMessageError(
            f"{encoding} image of shape {pixels.shape} cannot be converted: {error.err}"
        ) from error
