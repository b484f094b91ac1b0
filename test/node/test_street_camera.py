# SPDX-License-Identifier: Apache-2.0
"""The street camera node in a child process, tested through its topics.

The scenes are tested in test_simulation.py.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.qos import qos_profile_sensor_data
from ros_graph import Process, ros_arguments
from sensor_msgs.msg import CameraInfo, Image
from waiting import WAIT_S, wait_until

from canet_ros.demo.transport_check import TransportError, check_transport
from canet_ros.launching.transport import PROFILE_VARIABLES
from canet_ros.messages.images import decode_image
from canet_ros.simulation import StreetDrive

pytestmark = pytest.mark.ros
SIZE = {"width": 160, "height": 120}


@pytest.fixture
def street_camera():
    processes = []

    def start(**parameters):
        arguments = ros_arguments(parameters, name="street_camera", namespace="/front")
        processes.append(Process([sys.executable, "-m", "canet_ros.demo.street_camera", *arguments]))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


@pytest.fixture
def listen(graph):
    """Subscribes to a running camera's camera_info, ground truth and, last, to the images, for which it waits."""
    listeners = []

    def start():
        wait_for_camera(graph, "/front")
        topics = {"camera_info": CameraInfo, "truth": Image, "image_raw": Image}
        listeners.extend(graph.listen(kind, f"/front/{name}") for name, kind in topics.items())
        return listeners

    yield start
    for listener in listeners:
        listener.close()


def wait_for_camera(graph, camera):
    wait_until(lambda: graph.node.count_publishers(f"{camera}/camera_info"), "the camera")


def stamps_ns(listener):
    return [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in listener.messages]


def test_image_ground_truth_and_camera_info_share_a_header(listen, street_camera):
    camera = street_camera(
        seed=5, rate=5.0, frames=8, frame_id="front_optical", wait_for_subscribers=1, **SIZE
    )
    listeners = infos, labels, images = listen()
    assert camera.wait(WAIT_S) == 0
    for listener in listeners:
        listener.wait_for(8)
        assert stamps_ns(listener) == stamps_ns(images)
        assert {message.header.frame_id for message in listener.messages} == {"front_optical"}
    drive = StreetDrive(5, frame_rate_hz=5.0, **SIZE)
    for index, (image, label) in enumerate(zip(images.messages, labels.messages)):
        expected = drive.frame(index)
        assert (image.encoding, label.encoding) == ("bgr8", "mono8")
        np.testing.assert_array_equal(decode_image(image), expected.image)
        np.testing.assert_array_equal(decode_image(label), expected.labels)
    info = infos.messages[0]
    assert (info.width, info.height, info.distortion_model) == (160, 120, "plumb_bob")
    np.testing.assert_array_equal(info.k.reshape(3, 3), drive.camera_matrix)
    np.testing.assert_array_equal(info.p.reshape(3, 4)[:, :3], drive.camera_matrix)
    np.testing.assert_array_equal(info.r.reshape(3, 3), np.eye(3))
    assert list(info.d) == [0.0] * 5


def test_ros2_run_applies_the_fast_dds_profile(graph):
    """Fast DDS's defaults lose 99 % of images of 2.8 MB, however slowly they come."""
    size = {"width": 1280, "height": 720}
    arguments = ros_arguments(
        {"frames": 10, "rate": 4.0, "wait_for_subscribers": 1, **size}, "street_camera", "/bare"
    )
    program = "import sys; from canet_ros.start import street_camera; sys.exit(street_camera())"
    camera = Process([sys.executable, "-c", program, *arguments], dict.fromkeys(PROFILE_VARIABLES, ""))
    wait_for_camera(graph, "/bare")
    images = graph.listen(Image, "/bare/image_raw", qos_profile_sensor_data)
    assert camera.wait(WAIT_S) == 0
    images.wait_for(5)
    images.close()


def test_a_failed_process_is_named():
    with pytest.raises(TransportError, match="no_such_rmw"):
        check_transport({**os.environ, "RMW_IMPLEMENTATION": "no_such_rmw"})
