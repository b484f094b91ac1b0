# SPDX-License-Identifier: Apache-2.0
"""Content of image transports, by message type, by format, and by topic name before the first message."""

from __future__ import annotations

import pytest

from canet_ros.image_transports import COMPRESSED_IMAGE, transport_content

IMAGE = "sensor_msgs/msg/Image"


@pytest.mark.parametrize(
    ("msgtype", "topic", "format_text", "words"),
    [
        ("theora_image_transport/msg/Packet", "/cam/image_raw/theora", "", "video"),
        ("point_cloud_interfaces/msg/CompressedPointCloud2", "/points/draco", "", "point cloud"),
        (COMPRESSED_IMAGE, "/cam/image_raw/zstd", "zstd", "zstd_image_transport"),
        (COMPRESSED_IMAGE, "/cam/image_raw/zstd", "", "zstd_image_transport"),
        (COMPRESSED_IMAGE, "/elsewhere", "zstd", "zstd"),
        (COMPRESSED_IMAGE, "/cam/image_raw/compressedDepth", "", "depth"),
        (COMPRESSED_IMAGE, "/depth", "16UC1; compressedDepth png", "depth"),
        (COMPRESSED_IMAGE, "/depth", "mono16; compressedDepth rvl", "depth"),
        (COMPRESSED_IMAGE, "/depth/compressed", "16UC1; png compressed ", "depth, not camera images (16UC1)"),
        (COMPRESSED_IMAGE, "/depth/compressed", "32FC1; tiff compressed ", "32FC1"),
        (COMPRESSED_IMAGE, "/cam/compressed", "h264", "video"),
        (COMPRESSED_IMAGE, "/cam/compressed", "bgr8; H265", "video"),
    ],
)
def test_transports_without_images_are_named(msgtype: str, topic: str, format_text: str, words: str) -> None:
    assert words in transport_content(msgtype, topic, format_text)


@pytest.mark.parametrize(
    ("msgtype", "topic", "format_text"),
    [
        (IMAGE, "/cam/image_raw", ""),
        (IMAGE, "/zstd", ""),
        ("ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "/cam/image_raw/ffmpeg", ""),
        ("foxglove_msgs/msg/CompressedVideo", "/video", ""),
        (COMPRESSED_IMAGE, "/cam/image_raw/compressed", ""),
        (COMPRESSED_IMAGE, "/cam/image_raw/compressed", "rgb8; jpeg compressed bgr8"),
        (COMPRESSED_IMAGE, "/cam/zstd", "jpeg"),
        (COMPRESSED_IMAGE, "/cam", "mono16; png compressed "),
        ("sensor_msgs/msg/PointCloud2", "/points", ""),
    ],
)
def test_image_transports_have_no_problem(msgtype: str, topic: str, format_text: str) -> None:
    assert transport_content(msgtype, topic, format_text) == ""
