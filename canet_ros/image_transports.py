# SPDX-License-Identifier: Apache-2.0
"""Transports whose messages cannot be decoded as single images; shared by node and bags. Needs no ROS."""

from __future__ import annotations

import re

COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
# By image_transport; decoded by messages.video.
VIDEO_TYPES = {
    "ffmpeg": "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
    "foxglove": "foxglove_msgs/msg/CompressedVideo",
}
# REP 118. Cameras with one grey channel use mono16.
DEPTH_ENCODINGS = ("16UC1", "32FC1")

_VIDEO = "video, which cannot be decoded image by image"
_DEPTH = "depth, not camera images"
# Content by message type.
_CONTENT_OF_TYPE = {
    "theora_image_transport/msg/Packet": _VIDEO,
    "h264_msgs/msg/Packet": _VIDEO,
    "point_cloud_interfaces/msg/CompressedPointCloud2": "a compressed point cloud",
}
# Content of a CompressedImage by a word of its `format` or, before the first message, of the topic's last name.
_CONTENT_OF_CODEC = {
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
_IMAGE_MAGIC = (b"\xff\xd8", b"\x89PNG", b"II*\0", b"MM\0*")


def transport_content(msgtype: str, topic: str = "", format_text: str = "", data: bytes = b"") -> str:
    """Content of a topic that does not hold single images; empty if nothing suggests that.

    Args:
        msgtype: such as ``sensor_msgs/msg/CompressedImage``.
        topic: image_transport names its last part after the transport.
        format_text: the field ``format`` of one of its CompressedImage messages.
        data: of that message. The magic bytes of an image overrule an unknown format.

    Returns:
        Text to follow "holds": ``video, which cannot be decoded image by image (h264)``.
    """
    if msgtype in _CONTENT_OF_TYPE:
        return f"{_CONTENT_OF_TYPE[msgtype]} ({msgtype})"
    if msgtype != COMPRESSED_IMAGE:
        return ""
    encoding, separator, _ = format_text.partition(";")
    if separator and encoding.strip() in DEPTH_ENCODINGS:
        return f"{_DEPTH} ({encoding.strip()})"
    # The format overrules the topic, which drivers name freely.
    for word in re.findall(r"\w+", (format_text or topic.rpartition("/")[2]).lower()):
        if word in _CONTENT_OF_CODEC:
            return f"{_CONTENT_OF_CODEC[word]} ({word})"
    unknown = format_text.strip() and not any(codec in format_text.lower() for codec in _IMAGE_CODECS)
    if data and unknown and not data.startswith(_IMAGE_MAGIC):
        return f"data of format {format_text.strip()[:64]!r}, not JPEG, PNG or TIFF images"
    return ""
