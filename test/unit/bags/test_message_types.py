# SPDX-License-Identifier: Apache-2.0
"""Messages in CDR without ROS, against rclpy's reading of the same bytes."""

from __future__ import annotations

import struct

import pytest

from canet_ros.bags.bag import COMPRESSED_IMAGE
from canet_ros.bags.message_types import MessageError, from_cdr, header_stamp_ns, to_cdr

STRINGS = {
    "UTF-8": "kaméra\0".encode(),
    "Latin-1": "kaméra\0".encode("latin-1"),
    "unterminated": b"camera",
    "of length 0": b"",
    "empty": b"\0",
    "from a buffer of fixed size": b"camera\0\0\0\0\0",
    "with a rest behind its end": b"cam\0era\0",
}


def compressed_image(frame_id: bytes, format_text: bytes) -> bytes:
    body = struct.pack("<iI", 5, 6)
    for string in (frame_id, format_text, b"\1\2\3"):
        body += bytes(-len(body) % 4) + struct.pack("<I", len(string)) + string
    return b"\0\1\0\0" + body


@pytest.mark.parametrize("kind", STRINGS)
def test_strings_are_those_that_rclpy_takes(kind: str) -> None:
    serialization = pytest.importorskip("rclpy.serialization")
    message_type = pytest.importorskip("sensor_msgs.msg").CompressedImage
    for data in (compressed_image(STRINGS[kind], b"jpeg\0"), compressed_image(b"camera\0", STRINGS[kind])):
        message, expected = (
            from_cdr(data, COMPRESSED_IMAGE),
            serialization.deserialize_message(data, message_type),
        )
        assert (message.header.frame_id, message.format) == (expected.header.frame_id, expected.format)
        assert (header_stamp_ns(message.header), bytes(message.data)) == (5_000_000_006, b"\1\2\3")
        # What is written of it is plain.
        again = serialization.deserialize_message(to_cdr(message, COMPRESSED_IMAGE), message_type)
        assert again == expected


BEYOND_ITS_END = b"\0\1\0\0" + bytes(8) + struct.pack("<I", 5000) + b"camera\0\0"


@pytest.mark.parametrize(
    "data", [b"", bytes(8), compressed_image(b"camera\0", b"jpeg\0")[:-2], BEYOND_ITS_END]
)
def test_bytes_that_are_no_such_message(data: bytes) -> None:
    with pytest.raises(MessageError, match=f"{len(data)} bytes are not a {COMPRESSED_IMAGE}"):
        from_cdr(data, COMPRESSED_IMAGE)
