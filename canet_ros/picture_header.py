# SPDX-License-Identifier: Apache-2.0
"""What the bytes of a JPEG, PNG or TIFF say of themselves, read before a decoder takes memory for them.

Other formats that OpenCV would decode are refused: image_transport sends none of them, and each is one more decoder
that a stranger could feed.
"""

from __future__ import annotations

import re
import struct

# A marker that is neither padding, an escaped 0xFF of the coded data nor one of its restarts.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_WITHOUT_LENGTH = {0x01, 0xD8}
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_END, _START_OF_SCAN = 0xD9, 0xDA
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_KIND, _TIFF_ORIENTATION = 256, 257, 254, 274
_TIFF_STARTS = (b"II*\x00", b"MM\x00*")


class HeaderError(ValueError):
    """The bytes are no whole JPEG, PNG or TIFF; the text says what is missing."""


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, of a picture that is there from its first byte to its end.

    Bytes after the end are allowed: drivers pad. What lies between is the decoder's to check.

    Raises:
        HeaderError: another format, cut off, or broken.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if is_tiff(data):
        return _tiff(data)
    raise HeaderError("no JPEG, PNG or TIFF")


def is_tiff(data: bytes) -> bool:
    return data.startswith(_TIFF_STARTS)


def has_several_images(data: bytes) -> bool:
    """Whether a file is an animation or has pages (PNG, WebP, TIFF), of which OpenCV reads the first. Never raises."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at = data.find(b"acTL", 33, data.find(b"IDAT"))  # animated PNG counts its frames before the first
        return at > 0 and int.from_bytes(data[at + 4 : at + 8], "big") > 1
    if data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":
        return bool(data[20] & 2) and data.count(b"ANMF") > 1
    if is_tiff(data):
        return _tiff_pages(data) > 1
    return False


def exif_orientation(data: bytes) -> int:
    """How OpenCV turns a JPEG, PNG, WebP or TIFF: 1 (not at all) to 8, as EXIF counts. Never raises.

    Of a JPEG the first 128 KiB are enough: metadata stands before the pixels.
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
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4], "")
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", data, at + 2 + 12 * entry)
            if order and (tag, kind) == (_TIFF_ORIENTATION, 3) and 1 <= value <= 8:
                return int(value)
    except struct.error:
        pass
    return 1


def _tiff_pages(data: bytes) -> int:
    """Two for more than one; thumbnails and other small copies are no pages."""
    order = "<" if data[:2] == b"II" else ">"
    pages, seen = 0, set()
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        while at and at not in seen and pages < 2:
            seen.add(at)
            (count,) = struct.unpack_from(f"{order}H", data, at)
            entries = (
                struct.unpack_from(f"{order}HHII", data, at + 2 + 12 * entry) for entry in range(count)
            )
            pages += not any(tag == _TIFF_KIND and value & 1 for tag, _, _, value in entries)
            (at,) = struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)
    except struct.error:
        pass
    return pages


def _jpeg(data: bytes) -> tuple[int, int]:
    """From segment to segment, so that a thumbnail's end marker is not taken for the picture's."""
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
    raise HeaderError(f"JPEG of {len(data)} bytes is cut off: its end marker is missing")


def _png(data: bytes) -> tuple[int, int]:
    """From chunk to chunk as the decoder goes, which takes the memory that a chunk claims before it looks for it."""
    if len(data) < 33 or data[8:16] != b"\x00\x00\x00\x0dIHDR":
        raise HeaderError(f"PNG of {len(data)} bytes is cut off in its header")
    width, height = struct.unpack_from(">II", data, 16)
    at = 33
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            if length:
                raise HeaderError(f"PNG whose end holds {length} bytes")
            return width, height
        at += 12 + length
    raise HeaderError(f"PNG of {len(data)} bytes is cut off: its end is missing")


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    found: dict[int, int] = {}
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        for entry in range(min(count, 1000)):
            tag, kind = struct.unpack_from(f"{order}HH", data, at + 2 + 12 * entry)
            if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
                letter = {3: "H", 4: "I"}.get(kind)
                if letter is None:
                    raise HeaderError("TIFF whose size is of an unusual type")
                (found[tag],) = struct.unpack_from(f"{order}{letter}", data, at + 2 + 12 * entry + 8)
    except struct.error:
        raise HeaderError(f"TIFF of {len(data)} bytes is cut off") from None
    if set(found) != {_TIFF_WIDTH, _TIFF_HEIGHT}:
        raise HeaderError("TIFF without a size")
    return found[_TIFF_WIDTH], found[_TIFF_HEIGHT]
