# SPDX-License-Identifier: Apache-2.0
"""Labelled points through real topics: a lidar, a camera, and the points that the camera sees with their classes."""

from __future__ import annotations

import array
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Camera, Graph, Listener, Process, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from canet_ros.formats import parse_groups
from canet_ros.messages.points import labelled_points
from canet_ros.messages.projection import camera_projection, rigid_transform
from canet_ros.pipeline.outputs import point_outputs
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table
from canet_ros.ros.image_conversion import image_message

POSE = "0.2,-0.5,0.1,0.5,-0.5,0.5,0.5"
PREFIX = "/camera/segmentation"


@pytest.fixture(scope="module")
def node(sharp_model: Path, graph: Graph) -> Iterator[Process]:
    clouds = {
        "image_topics": "['/camera/image_raw', '/rgbd/image_raw', '/packed/image_raw']",
        "cloud_topics": "['/lidar/points']",
        "cloud_extrinsics": f"['{POSE}']",
        "depth_topics": "['', '/rgbd/depth/image', '/packed/depth/compressedDepth']",
        "groups": "'{mine: [sign_symbol, sky]}'",
    }
    with segmentation_node(sharp_model, **clouds) as process:
        graph.wait_for_state("active")
        yield process


@pytest.fixture
def camera(graph: Graph, node: Process) -> Iterator[Camera]:
    yield graph.camera()
    graph.clear()


def cloud_of(xyz: np.ndarray, stamp: Time) -> PointCloud2:
    fields = [
        PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate("xyz")
    ]
    return PointCloud2(
        header=Header(stamp=stamp, frame_id="lidar"), height=1, width=len(xyz), fields=fields, point_step=12,
        row_step=12 * len(xyz), data=array.array("B", xyz.astype("<f4").tobytes()),
    )  # fmt: skip


def info_of(stamp: Time) -> CameraInfo:
    matrix = [150.0, 0.0, 80.0, 0.0, 150.0, 60.0, 0.0, 0.0, 1.0]
    header = Header(stamp=stamp, frame_id="camera")
    return CameraInfo(
        header=header, width=160, height=120, k=matrix, d=[0.0] * 5, distortion_model="plumb_bob"
    )


def table_of(message: PointCloud2) -> np.ndarray:
    kinds = {PointField.FLOAT32: "<f4", PointField.UINT32: "<u4"}
    fields = {field.name: (kinds[field.datatype], field.offset) for field in message.fields}
    names, (formats, offsets) = list(fields), zip(*fields.values())
    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": message.point_step}
    return np.frombuffer(message.data, np.dtype(layout))


def test_the_points_that_the_camera_sees_come_with_class_confidence_and_colour(
    graph: Graph, camera: Camera, sharp_segmenter: Segmenter
) -> None:
    masks = graph.listen(Image, f"{PREFIX}/mask")
    graph.connect(camera, masks)
    lidar = graph.node.create_publisher(PointCloud2, "/lidar/points", 10)
    infos = graph.node.create_publisher(CameraInfo, "/camera/camera_info", 10)
    assert lidar.get_subscription_count() == 0  # nobody wants points
    points = graph.listen(PointCloud2, f"{PREFIX}/points")
    of_group = {
        name: graph.listen(PointCloud2, f"{PREFIX}/groups/mine/{name}")
        for name in ("points", "points_outside")
    }
    wait_until(
        lambda: lidar.get_subscription_count() and infos.get_subscription_count(), "the node's subscription"
    )
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")

    image = picture(160, 120)
    xyz = np.random.default_rng(0).uniform((-5, -9, -6), (20, 9, 6), (3000, 3)).astype(np.float32)
    xyz[7] = np.nan

    def send(number: int, late_ms: int, with_info: bool = True) -> Time:
        stamp = Time(sec=4000 + number, nanosec=500_000_000)
        if with_info:
            infos.publish(info_of(stamp))
        lidar.publish(cloud_of(xyz, Time(sec=stamp.sec, nanosec=stamp.nanosec + late_ms * 1_000_000)))
        camera.publish(image_message(image, "bgr8", Header(stamp=stamp, frame_id="camera")))
        masks.wait_for_stamp(stamp)
        return stamp

    def without_info() -> bool:
        send(-10 * len(masks.messages), late_ms=20, with_info=False)
        expected = "no camera_info received on /camera/camera_info: without it, groups/"
        status = health(diagnostics, "/camera/image_raw")
        return expected in status.get("message", "") and status["fault"] == "camera_info_missing"

    wait_until(without_info, "the reason")

    numbers, listeners = itertools.count(1), (points, *of_group.values())

    def send_until(came: Callable[[Listener], object]) -> None:
        """Images and clouds: at first not everybody knows everybody, and a cloud may come after its image."""
        wait_until(lambda: send(next(numbers), 20) and all(map(came, listeners)), "points on all topics")

    send_until(lambda listener: listener.messages)
    message = points.messages[0]
    assert (message.header.frame_id, message.header.stamp.nanosec) == ("lidar", 520_000_000)
    projection = camera_projection(info_of(Time()), (160, 120))
    labelled = labelled_points(
        xyz, rigid_transform([float(t) for t in POSE.split(",")]), projection, sharp_segmenter(image),
        color_lookup_table(sharp_segmenter.spec.classes),
    )  # fmt: skip
    expected = labelled.seen
    found = table_of(message)
    assert len(expected) > 100
    np.testing.assert_array_equal(np.stack([found["x"], found["y"], found["z"]], 1), expected["xyz"])
    np.testing.assert_array_equal(found["label"], expected["label"])
    np.testing.assert_array_equal(found["confidence"], expected["confidence"])
    np.testing.assert_array_equal(found["rgb"].view("<u4"), expected["rgb"])
    assert len(set(found["label"])) > 1

    of_classes = point_outputs(parse_groups("{mine: [sign_symbol, sky]}"))
    tables = {name: of_classes[f"groups/mine/{name}"](sharp_segmenter.spec.classes) for name in of_group}
    for name, listener in of_group.items():
        assert bytes(listener.messages[0].data) == labelled.of(tables[name]).tobytes()
    assert 0 < len(labelled.of(tables["points"])) < len(expected)
    assert graph.set_parameter("organized_points", True).successful
    send_until(lambda listener: listener.messages[-1].height > 1)
    assert bytes(points.messages[-1].data) == labelled.organized().tobytes()
    assert bytes(of_group["points"].messages[-1].data) == labelled.organized(tables["points"]).tobytes()
    assert graph.set_parameter("organized_points", False).successful

    late = send(next(numbers), late_ms=200).sec
    send_until(lambda listener: listener.messages[-1].header.stamp.sec > late)
    stamps = [message.header.stamp.sec for message in points.messages]
    assert late not in stamps, "200 ms apart, with a sync_slop of 50 ms"
    assert graph.set_parameter("sync_slop", 0.3).successful

    graph.node.destroy_publisher(lidar)
    graph.node.destroy_publisher(infos)


@pytest.mark.parametrize("name", ["rgbd", "packed"])
def test_depth_images_give_points_and_those_that_do_not_fit_are_counted(
    name: str, graph: Graph, node: Process, sharp_segmenter: Segmenter
) -> None:
    """An Image, or a CompressedImage of image_transport's compressedDepth."""
    kind, topic = (Image, "image") if name == "rgbd" else (CompressedImage, "compressedDepth")
    camera = graph.camera(f"/{name}/image_raw")
    points = graph.listen(PointCloud2, f"/{name}/segmentation/points")
    depths = graph.node.create_publisher(kind, f"/{name}/depth/{topic}", 10)
    infos = graph.node.create_publisher(CameraInfo, f"/{name}/camera_info", 10)
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    wait_until(lambda: depths.get_subscription_count() and infos.get_subscription_count(), "subscriptions")
    image, mm = picture(160, 120), np.full((120, 160), 2500, np.uint16)
    mm[:60] = 0
    number = 0

    def depth_of(damaged: bool) -> Image | CompressedImage:
        if kind is Image:
            shown = mm[:, :90] if damaged else mm
            data = array.array("B", shown.tobytes())
            return Image(
                height=120, width=shown.shape[1], step=2 * shown.shape[1], encoding="16UC1", data=data
            )
        data = bytes(12) + cv2.imencode(".png", mm)[1].tobytes()
        return CompressedImage(
            format="16UC1; compressedDepth png", data=data[: -20 if damaged else len(data)]
        )

    def send(damaged: bool = False) -> bool:
        nonlocal number
        number += 1
        header = Header(stamp=Time(sec=5000 + number), frame_id="rgbd")
        message = depth_of(damaged)
        message.header = header
        infos.publish(info_of(header.stamp))
        depths.publish(message)
        camera.publish(image_message(image, "bgr8", header))
        time.sleep(0.1)
        return True

    wait_until(lambda: send() and points.messages, "the points")
    found = table_of(points.messages[0])
    np.testing.assert_array_equal(found["label"], sharp_segmenter(image).mask[60:].ravel())
    np.testing.assert_allclose(found["z"], 2.5)
    words = "not aligned" if kind is Image else "compressed depth image is damaged"

    def is_counted() -> bool:
        send(damaged=True)
        values = health(diagnostics, f"/{name}/image_raw")
        return words in values.get("last_error", "") and int(values["bad_clouds"]) > 0

    wait_until(is_counted, "the damaged image")
    graph.node.destroy_publisher(depths)
    graph.node.destroy_publisher(infos)
    graph.clear()
