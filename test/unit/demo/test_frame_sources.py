# SPDX-License-Identifier: Apache-2.0
"""Images of the user's videos and bags for the street camera."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from canet_ros.demo.frame_sources import input_images

IMAGES = [np.full((48 + 2 * i, 64, 3), (40 * i, 250 - 30 * i, 90), np.uint8) for i in range(3)]


def write_video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for pixels in IMAGES:
        writer.write(cv2.resize(pixels, (64, 48)))
    writer.release()
    return path


def write_bag(path):
    """A rosbag2 with raw images and an empty one on one topic, one compressed image on another."""
    pytest.importorskip("mcap")
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    image, compressed = (store.types[f"sensor_msgs/msg/{name}"] for name in ("Image", "CompressedImage"))
    header = store.types["std_msgs/msg/Header"](store.types["builtin_interfaces/msg/Time"](1, 2), "cam")
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as bag:
        front = bag.add_connection("/front/image_raw", image.__msgtype__, typestore=store)
        rear = bag.add_connection("/rear/image_raw/compressed", compressed.__msgtype__, typestore=store)
        for index, pixels in enumerate(IMAGES):
            height, width = pixels.shape[:2]
            rgb = pixels[..., ::-1].copy().ravel()
            message = image(header, height, width, "rgb8", 0, 3 * width, rgb)
            bag.write(front, index * 10**8, store.serialize_cdr(message, image.__msgtype__))
        empty = image(header, 0, 0, "rgb8", 0, 0, np.zeros(0, np.uint8))
        bag.write(front, 10**9, store.serialize_cdr(empty, image.__msgtype__))
        jpeg = cv2.imencode(".jpg", IMAGES[0])[1].ravel()
        message = compressed(header, "rgb8; jpeg compressed bgr8", jpeg)
        bag.write(rear, 0, store.serialize_cdr(message, compressed.__msgtype__))
    return path


def test_frames_of_a_video(tmp_path):
    frames = list(input_images(write_video(tmp_path / "drive.avi"), pytest.fail))
    assert len(frames) == len(IMAGES)
    for frame, pixels in zip(frames, IMAGES):
        np.testing.assert_allclose(frame.mean((0, 1)), pixels.mean((0, 1)), atol=6)


def test_frames_of_a_rosbag_are_those_of_the_topic_with_most_images(tmp_path):
    warnings = []
    frames = list(input_images(write_bag(tmp_path / "bag"), warnings.append))
    assert len(frames) == len(IMAGES)
    for frame, pixels in zip(frames, IMAGES):
        np.testing.assert_array_equal(frame, pixels)
    assert len(warnings) == 1
    assert "/front/image_raw: image of zero size" in warnings[0]


def test_damaged_messages_of_a_bag_are_skipped_with_a_warning(tmp_path):
    (file,) = write_bag(tmp_path / "bag").glob("*.mcap")
    data = bytearray(file.read_bytes())
    encoding = data.index(b"\x05\0\0\0rgb8\0")
    data[encoding : encoding + 4] = b"\xff\xff\xff\x7f"
    file.write_bytes(data)
    warnings = []
    frames = list(input_images(tmp_path / "bag", warnings.append))
    assert len(frames) == len(IMAGES) - 1
    assert any("2147483647" in warning for warning in warnings)
