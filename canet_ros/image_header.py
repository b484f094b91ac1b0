# SPDX-License-Identifier: Apache-2.0
"""Size and metadata of a JPEG, PNG or TIFF, read from its header before a decoder allocates memory.

Other formats that OpenCV can decode are refused: image_transport does not send them, and every decoder more is attack
surface.
"""

from __future__ import annotations

import re
import struct

# A marker other than padding, an escaped 0xFF in the coded data, or a restart marker.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_WITHOUT_LENGTH = {0x01, 0xD8}
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_END, _START_OF_SCAN = 0xD9, 0xDA
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_ORIENTATION = 256, 257, 274
_TIFF_INTEGERS = {3: "H", 4: "I"}  # SHORT and LONG
_TIFF_STARTS = (b"II*\x00", b"MM\x00*")


class HeaderError(ValueError):
    """The bytes are not a complete JPEG, PNG or TIFF; the message says what is missing."""


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of an image that is complete up to its end marker.

    Bytes after the end are allowed, because drivers pad. The coded data is left to the decoder to check.

    Raises:
        HeaderError: another format, truncated, or broken.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if is_tiff(data):
        return _tiff(data)
    raise HeaderError("not a JPEG, PNG or TIFF")


def is_tiff(data: bytes) -> bool:
    return data.startswith(_TIFF_STARTS)


def exif_orientation(data: bytes) -> int:
    """EXIF orientation by which OpenCV rotates a JPEG, PNG, WebP or TIFF: 1 (not at all) to 8. Never raises.

    The first 128 KiB of a JPEG are enough, because its metadata precedes the pixels.
    """
    if data.startswith(b"\xff\xd8"):
        at = data.find(b"Exif\0\0", 0, 2**17)
        return _tiff_orientation(data[at + 6 : at + 2**16]) if at > 0 else 1
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at = data.find(b"eXIf", 33)
        return _tiff_orientation(data[at + 4 :]) if at > 0 else 1
    if data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X" and data[20] & 8:
        at = data.find(b"EXIF", 30)
        return _tiff_orientation(data[at + 8 :].removeprefix(b"Exif\0\0")) if at > 0 else 1
    return _tiff_orientation(data)


def _tiff_orientation(data: bytes) -> int:
    try:
        orientation = _tiff_entries(data).get(_TIFF_ORIENTATION, 1)
    except struct.error:
        return 1
    return orientation if is_tiff(data) and 1 <= orientation <= 8 else 1


def _tiff_entries(data: bytes) -> dict[int, int]:
    """Integer entries of the first directory by tag.

    Raises:
        struct.error: truncated.
    """
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    entries = {}
    for start in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, start)
        if kind in _TIFF_INTEGERS:
            (entries[tag],) = struct.unpack_from(f"{order}{_TIFF_INTEGERS[kind]}", data, start + 8)
    return entries


def _jpeg(data: bytes) -> tuple[int, int]:
    """Walk the segments, so that the end marker of a thumbnail is not taken for that of the image."""
    size: tuple[int, int] | None = None
    at = 2
    while match := _MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker == _END:
            if size is None:
                raise HeaderError("JPEG without a frame header")
            return size
        if marker in _WITHOUT_LENGTH:
            continue
        if at + 2 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2:
            raise HeaderError(f"JPEG with a segment of length {length}")
        if marker in _START_OF_FRAME:
            if length < 8 or at + 7 > len(data):
                raise HeaderError("JPEG with a broken frame header")
            height, width = struct.unpack_from(">HH", data, at + 3)
            if size is not None:
                raise HeaderError("JPEG with two frame headers")
            size = (width, height)
        at += length
    raise HeaderError(f"JPEG of {len(data)} bytes is truncated: its end marker is missing")


def _png(data: bytes) -> tuple[int, int]:
    """Walk the chunks as the decoder does, which allocates the length that a chunk claims before it reads it."""
    if len(data) < 33 or data[8:16] != b"\x00\x00\x00\x0dIHDR":
        raise HeaderError(f"PNG of {len(data)} bytes is truncated in its header")
    width, height = struct.unpack_from(">II", data, 16)
    at = 33
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            if length:
                raise HeaderError(f"PNG whose IEND chunk has {length} bytes")
            return width, height
        at += 12 + length
    raise HeaderError(f"PNG of {len(data)} bytes is truncated: its IEND chunk is missing")


def _tiff(data: bytes) -> tuple[int, int]:
    try:
        entries = _tiff_entries(data)
    except struct.error:
        raise HeaderError(f"TIFF of {len(data)} bytes is truncated") from None
    if not entries.keys() >= {_TIFF_WIDTH, _TIFF_HEIGHT}:
        raise HeaderError("TIFF without a size")
    return entries[_TIFF_WIDTH], entries[_TIFF_HEIGHT]
