# SPDX-License-Identifier: Apache-2.0
"""Transports whose messages hold no image that can be decoded on its own: one table for node and bags. No ROS."""

from __future__ import annotations

import re

COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
# REP 118. A camera with one grey channel says mono16.
DEPTH_ENCODINGS = ("16UC1", "32FC1")

_VIDEO = "video, which cannot be decoded image by image"
_DEPTH = "depth, not camera images"
# What messages of a type hold, whatever their topic is called.
_TYPES = {
    "theora_image_transport/msg/Packet": _VIDEO,
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": _VIDEO,
    "foxglove_msgs/msg/CompressedVideo": _VIDEO,
    "h264_msgs/msg/Packet": _VIDEO,
    "point_cloud_interfaces/msg/CompressedPointCloud2": "a compressed point cloud",
}
# What a CompressedImage holds, by a word of its `format` or, before a message has come, by the topic's last name.
_CODECS = {
    "zstd": "raw images packed by zstd_image_transport",
    "compresseddepth": _DEPTH,
    "rvl": _DEPTH,
    "draco": "a compressed point cloud",
    "theora": _VIDEO,
    "ffmpeg": _VIDEO,
    "avif": "AVIF images",
    "foxglove": _VIDEO,
    **dict.fromkeys(
        ("h264", "avc", "x264", "h265", "hevc", "x265", "av1", "svtav1", "vp8", "vp9", "mpeg4"), _VIDEO
    ),
}
_IMAGE_CODECS = ("jpeg", "jpg", "png", "tif")
_IMAGE_STARTS = (b"\xff\xd8", b"\x89PNG", b"II*\0", b"MM\0*")


def transport_content(msgtype: str, topic: str = "", format_text: str = "", data: bytes = b"") -> str:
    """What a topic holds instead of images that can be decoded one by one; empty: nothing speaks against images.

    Args:
        msgtype: as ``sensor_msgs/msg/CompressedImage``.
        topic: its last name is the transport's, where image_transport named it.
        format_text: the field ``format`` of one of its CompressedImage messages.
        data: of that message. Data that begins as an image counts more than an unknown format.

    Returns:
        What follows "holds" in a sentence: ``video, which cannot be decoded image by image (h264)``.
    """
    if msgtype in _TYPES:
        return f"{_TYPES[msgtype]} ({msgtype})"
    if msgtype != COMPRESSED_IMAGE:
        return ""
    encoding, separator, _ = format_text.partition(";")
    if separator and encoding.strip() in DEPTH_ENCODINGS:
        return f"{_DEPTH} ({encoding.strip()})"
    # Drivers name topics as they like: what a message says of itself counts more.
    for word in re.findall(r"\w+", (format_text or topic.rpartition("/")[2]).lower()):
        if word in _CODECS:
            return f"{_CODECS[word]} ({word})"
    unknown = format_text.strip() and not any(codec in format_text.lower() for codec in _IMAGE_CODECS)
    if data and unknown and not data.startswith(_IMAGE_STARTS):
        return f"data of format {format_text.strip()[:64]!r}, not JPEG, PNG or TIFF images"
    return ""
