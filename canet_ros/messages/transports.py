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
    **dict.fromkeys(("h264", "h265", "hevc", "av1", "svtav1", "vp8", "vp9"), _VIDEO),
}


def transport_content(msgtype: str, topic: str = "", format_text: str = "") -> str:
    """What a topic holds instead of images that can be decoded one by one; empty: nothing speaks against images.

    Args:
        msgtype: as ``sensor_msgs/msg/CompressedImage``.
        topic: its last name is the transport's, where image_transport named it.
        format_text: the field ``format`` of one of its CompressedImage messages.

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
    return ""
