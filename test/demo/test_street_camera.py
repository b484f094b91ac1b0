# SPDX-License-Identifier: Apache-2.0
"""The street camera node in a child process, tested through its topics.

The scenes are tested in test_simulation.py, lossless transport in test_transport.py.
"""

from __future__ import annotations

import signal
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
from rclpy.qos import qos_profile_sensor_data
from ros_graph import Graph, Process, ros_arguments, wait_until
from sensor_msgs.msg import CameraInfo, Image

from canet_ros.demo.frame_sources import input_images
from canet_ros.launching.transport import PROFILE_VARIABLES
from canet_ros.messages.images import frame_from_image
from canet_ros.simulation import StreetDrive

pytestmark = pytest.mark.ros
SIZE = {"width": 160, "height": 120}


@pytest.fixture(scope="module")
def graph():
    graph = Graph()
    yield graph
    graph.close()


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


def listen(graph, qos=10):
    topics = {"image_raw": Image, "camera_info": CameraInfo, "truth": Image}
    return [graph.listen(kind, f"/front/{name}", qos) for name, kind in topics.items()]


def stamps_ns(listener):
    return [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in listener.messages]


def test_image_ground_truth_and_camera_info_share_a_header(graph, street_camera):
    listeners = images, infos, labels = listen(graph)
    camera = street_camera(
        seed=5, rate=20.0, frames=8, frame_id="front_optical", wait_for_subscribers=1, **SIZE
    )
    assert camera.wait(20) == 0
    for listener in listeners:
        listener.wait_for(8)
        assert stamps_ns(listener) == stamps_ns(images)
        assert {message.header.frame_id for message in listener.messages} == {"front_optical"}
        listener.close()
    drive = StreetDrive(5, frame_rate_hz=20.0, **SIZE)
    for index, (image, label) in enumerate(zip(images.messages, labels.messages)):
        expected = drive.frame(index)
        assert (image.encoding, label.encoding) == ("bgr8", "mono8")
        np.testing.assert_array_equal(frame_from_image(image), expected.image)
        np.testing.assert_array_equal(frame_from_image(label), expected.labels)
    info = infos.messages[0]
    assert (info.width, info.height, info.distortion_model) == (160, 120, "plumb_bob")
    np.testing.assert_array_equal(info.k.reshape(3, 3), drive.camera_matrix)
    np.testing.assert_array_equal(info.p.reshape(3, 4)[:, :3], drive.camera_matrix)
    np.testing.assert_array_equal(info.r.reshape(3, 3), np.eye(3))
    assert list(info.d) == [0.0] * 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_best_effort_subscribers_receive_the_rate_until_it_is_stopped(number, graph, street_camera):
    images, infos, labels = listen(graph, qos_profile_sensor_data)
    camera = street_camera(rate=20, publish_truth=False, **SIZE)
    images.wait_for(21)
    camera.signal(number)
    assert camera.wait(5) == 0
    assert "Traceback" not in camera.output()
    stamps_s = np.array(stamps_ns(images)) * 1e-9
    assert np.median(np.diff(stamps_s)) == pytest.approx(0.05, abs=0.01)
    assert len(infos.messages) == pytest.approx(len(images.messages), abs=2)
    assert labels.messages == []
    for listener in (images, infos, labels):
        listener.close()


def test_ros2_run_applies_the_fast_dds_profile(graph):
    """Fast DDS's defaults lose most images of 2.8 MB."""
    images = graph.listen(Image, "/bare/image_raw", qos_profile_sensor_data)
    size = {"width": 1280, "height": 720, "publish_truth": False}
    arguments = ros_arguments({"frames": 20, "wait_for_subscribers": 1, **size}, "street_camera", "/bare")
    program = "import sys; from canet_ros.start import street_camera; sys.exit(street_camera())"
    camera = Process([sys.executable, "-c", program, *arguments], dict.fromkeys(PROFILE_VARIABLES, ""))
    assert camera.wait(60) == 0
    images.wait_for(18)
    images.close()


IMAGES = [np.full((48 + 2 * i, 64, 3), (40 * i, 250 - 30 * i, 90), np.uint8) for i in range(3)]


def write_folder(folder):
    folder.mkdir()
    for index, pixels in enumerate(IMAGES):
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
    (folder / "broken.jpg").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not an image either")
    return folder


def write_video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for pixels in IMAGES:
        writer.write(cv2.resize(pixels, (64, 48)))
    writer.release()
    return path


def write_bag(path):
    """A rosbag2 with raw images and an empty one on one topic, one compressed image on another."""
    pytest.importorskip("rosbags")
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


def test_a_folder_of_images(graph, street_camera, tmp_path):
    images, infos, labels = listen(graph)
    camera = street_camera(input=write_folder(tmp_path / "input"), rate=20.0, wait_for_subscribers=1)
    assert camera.wait(20) == 0, "it ends with its input"
    images.wait_for(len(IMAGES))
    assert len(images.messages) == len(IMAGES)
    for message, pixels in zip(images.messages, IMAGES):
        np.testing.assert_array_equal(frame_from_image(message), pixels)
    assert labels.messages == []
    assert set(infos.messages[0].k) == {0.0}, "K of zeros means uncalibrated"
    assert "broken.jpg" in camera.output()
    for listener in (images, infos, labels):
        listener.close()


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


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"rate": 0}, "rate must be above 0"),
        ({"rate": "fast"}, "parameter rate"),
        ({"width": 9}, "size"),
        ({"input": "/no/such/drive.mp4"}, "/no/such/drive.mp4"),
    ],
)
def test_invalid_parameters_are_one_line_of_error(parameters, words, street_camera):
    camera = street_camera(**parameters)
    assert camera.wait(20) == 1
    lines = camera.output().strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_a_folder_without_a_readable_image_is_an_error(street_camera, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not an image")
    camera = street_camera(input=tmp_path)
    assert camera.wait(20) == 1
    assert "contains no readable image" in camera.output()


def test_a_damaged_bag_is_one_line_of_error(street_camera, tmp_path):
    (file,) = write_bag(tmp_path / "bag").glob("*.mcap")
    data = bytearray(file.read_bytes())
    encoding = data.rindex(b"\x05\0\0\0rgb8\0")
    data[encoding : encoding + 4] = b"\xff\xff\xff\x7f"
    file.write_bytes(data)
    camera = street_camera(input=tmp_path / "bag", rate=100.0)
    assert camera.wait(20) == 1
    assert camera.output().strip().splitlines()[-1].startswith("street_camera: cannot produce the next frame")
    assert "Traceback" not in camera.output()


def test_it_waits_for_its_subscribers(graph, street_camera):
    first = graph.listen(Image, "/front/image_raw")
    camera = street_camera(rate=20.0, frames=3, wait_for_subscribers=2, **SIZE)
    wait_until(lambda: graph.node.count_publishers("/front/image_raw"), "the camera")
    with pytest.raises(AssertionError, match="in vain"):
        first.wait_for(1, timeout_s=1.0)
    second = graph.listen(Image, "/front/image_raw")
    assert camera.wait(20) == 0
    for listener in (first, second):
        assert len(listener.wait_for(3)) == 3
        listener.close()
