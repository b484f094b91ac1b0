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


def recorded_bag(path):
    """A rosbag2 with raw images and one that cannot be decoded on one topic, one compressed image on another."""
    drives = pytest.importorskip("drives")
    front, rear = drives.TOPICS["/front/image_raw"], drives.TOPICS["/rear/image_raw/compressed"]
    contents = [(front, drives.image(pixels, index + 1)) for index, pixels in enumerate(IMAGES)]
    contents += [(front, drives.image(IMAGES[0], 9, "no_such_encoding"))]
    contents += [(rear, drives.compressed(IMAGES[0], 10))]
    recorded = [drives.Recorded(t.name, t.msgtype, n * 10**8, cdr) for n, (t, cdr) in enumerate(contents)]
    return drives.write_bag(path, recorded, topics=[front, rear])


def test_frames_of_a_video(tmp_path):
    frames = list(input_images(write_video(tmp_path / "drive.avi"), pytest.fail))
    assert len(frames) == len(IMAGES)
    for frame, pixels in zip(frames, IMAGES):
        np.testing.assert_allclose(frame.mean((0, 1)), pixels.mean((0, 1)), atol=6)


def test_frames_of_a_rosbag_are_those_of_the_topic_with_most_images(tmp_path):
    warnings = []
    frames = list(input_images(recorded_bag(tmp_path / "bag"), warnings.append))
    assert len(frames) == len(IMAGES)
    for frame, pixels in zip(frames, IMAGES):
        np.testing.assert_array_equal(frame, pixels)
    assert len(warnings) == 1
    assert "/front/image_raw: " in warnings[0]
