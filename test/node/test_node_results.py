# SPDX-License-Identifier: Apache-2.0
"""One node, two cameras, over DDS: results equal the Segmenter's, and nothing is computed without a subscriber."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_graph import (
    Camera,
    Graph,
    Listener,
    Process,
    health,
    picture,
    pixels_of,
    segmentation_node,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from waiting import WAIT_S

from canet_ros.pipeline.outputs import membership_table
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, colorize, overlay
from canet_ros.ros.fault_log import Fault
from canet_ros.ros.image_conversion import image_message

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def node(random_model: Path, graph: Graph) -> Iterator[Process]:
    with segmentation_node(random_model, image_topics="['/front/image_raw', '/rear/image_raw']") as process:
        graph.wait_for_state("active")
        yield process


@pytest.fixture
def front(graph: Graph, node: Process) -> Iterator[Camera]:
    yield graph.camera("/front/image_raw")
    graph.clear()


@pytest.mark.parametrize("size", [(160, 120), (641, 479), (97, 33)])
def test_every_output_is_exact(
    graph: Graph, front: Camera, segmenter: Segmenter, size: tuple[int, int]
) -> None:
    listeners = {
        name: graph.listen(Image, f"/front/segmentation/{name}")
        for name in ("mask", "color_mask", "overlay", "confidence")
    }
    graph.connect(front, *listeners.values())
    image = picture(*size)
    stamp = front.send(image, frame_id="front_optical")
    got = {name: listener.wait_for_stamp(stamp) for name, listener in listeners.items()}

    expected = segmenter(image)
    assert len(np.unique(expected.mask)) > 2
    table = color_lookup_table(segmenter.spec.classes, "rgb")
    pictures = {
        "mask": ("mono8", expected.mask),
        "color_mask": ("rgb8", colorize(expected.mask, table)),
        "overlay": ("bgr8", overlay(image, expected.mask, np.ascontiguousarray(table[:, ::-1]), 0.5)),
        "confidence": ("mono8", expected.confidence),
    }
    for name, (encoding, pixels) in pictures.items():
        message = got[name]
        assert message.encoding == encoding
        np.testing.assert_array_equal(pixels_of(message), pixels, err_msg=name)
        assert message.header == Header(stamp=stamp, frame_id="front_optical")


def test_camera_info_is_scaled_to_the_mask_and_stamped_like_it(graph: Graph, front: Camera) -> None:
    infos = graph.listen(CameraInfo, "/front/segmentation/camera_info")
    masks = graph.listen(Image, "/front/segmentation/mask")
    driver = graph.node.create_publisher(CameraInfo, "/front/camera_info", 10)
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    graph.connect(front, masks)
    wait_until(driver.get_subscription_count, "the node's subscription")
    # The driver's image is 320x240 of a sensor calibrated at 640x480.
    now = graph.node.get_clock().now()
    header = Header(stamp=now.to_msg(), frame_id="front_optical")
    k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    driver.publish(CameraInfo(header=header, width=640, height=480, k=k))
    later = Header(stamp=(now + Duration(seconds=0.03)).to_msg(), frame_id="front_optical")
    driver.publish(CameraInfo(header=later, width=64, height=48, k=k))
    # It comes on a topic of its own, so in no order with the image. The node takes it before it reports three times.
    assert driver.wait_for_all_acked(Duration(seconds=WAIT_S))
    diagnostics.wait_for_new(3)
    front.publish(image_message(picture(320, 240), "bgr8", header))
    info, mask = infos.wait_for_stamp(header.stamp), masks.wait_for_stamp(header.stamp)
    assert (info.width, info.height) == (mask.width, mask.height) == (320, 240)
    assert info.header == mask.header == header
    np.testing.assert_allclose(info.k, [250, 0, 160, 0, 255, 120, 0, 0, 1])
    graph.node.destroy_publisher(driver)


def camera_info_reported(node: Process, diagnostics: Listener, camera: str, words: str) -> bool:
    """Whether the words are in the camera's message on /diagnostics and in one warning in the log."""
    lines = [line for line in node.output().splitlines() if "WARN" in line and f"{camera}: " in line]
    return (
        words in health(diagnostics, camera).get("message", "") and sum(words in line for line in lines) == 1
    )


def test_a_camera_info_with_a_frozen_stamp_is_used_with_a_warning(
    graph: Graph, node: Process, front: Camera
) -> None:
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    infos = graph.listen(CameraInfo, "/front/segmentation/camera_info")
    masks = graph.listen(Image, "/front/segmentation/mask")
    driver = graph.camera("/front/camera_info", CameraInfo)
    graph.connect(front, masks)
    driver.wait_for_subscriber()
    frozen = Header(stamp=(graph.node.get_clock().now() - Duration(seconds=90)).to_msg())

    def reported() -> bool:
        driver.publish(CameraInfo(header=frozen, width=160, height=120))
        diagnostics.wait_for_new(3)  # by then the node has it
        stamp = front.send(picture(160, 120))
        masks.wait_for_stamp(stamp)
        assert infos.wait_for_stamp(stamp).width == 160
        return camera_info_reported(node, diagnostics, "/front/image_raw", "s older than the image")

    wait_until(reported, "one warning in the log, and the same on /diagnostics")
    assert health(diagnostics, "/front/image_raw")["level"] == "1"


def test_a_missing_camera_info_is_a_warning_once_somebody_needs_it(graph: Graph, node: Process) -> None:
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    rear = graph.camera("/rear/image_raw")
    masks = graph.listen(Image, "/rear/segmentation/mask")
    graph.connect(rear, masks)

    def reported() -> bool:
        masks.wait_for_stamp(rear.send(picture(160, 120)))
        words = "no camera_info received on /rear/camera_info"
        return camera_info_reported(node, diagnostics, "/rear/image_raw", words)

    time.sleep(2.5)
    reported()
    assert "/rear/camera_info" not in node.output(), "nobody asked for it"
    graph.listen(CameraInfo, "/rear/segmentation/camera_info")
    wait_until(reported, "one warning in the log, and the same on /diagnostics")
    graph.clear()


def test_a_camera_info_published_once_and_latched_reaches_the_node(graph: Graph, node: Process) -> None:
    latched = QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )
    driver = graph.node.create_publisher(CameraInfo, "/rear/camera_info", latched)
    driver.publish(
        CameraInfo(header=Header(stamp=graph.node.get_clock().now().to_msg()), width=160, height=120)
    )
    for _ in range(2):  # also after a time without subscribers
        infos = graph.listen(CameraInfo, "/rear/segmentation/camera_info")
        rear = graph.camera("/rear/image_raw")
        graph.connect(rear, infos)
        graph.clear()
        # By the node's own word: Fast DDS of Kilted now and then counts a subscription for long after its end.
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        wait_until(
            lambda listener=diagnostics: health(listener, "/rear/image_raw").get("subscribed") == "False",
            "the node to unsubscribe",
        )
    assert "offering incompatible QoS" not in node.output()
    graph.node.destroy_publisher(driver)


def test_no_subscriber_no_inference(graph: Graph, front: Camera) -> None:
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    wait_until(
        lambda: health(diagnostics, "/front/image_raw").get("subscribed") == "False", "no subscription"
    )
    before = health(diagnostics, "engine")["batches"]
    received = health(diagnostics, "/front/image_raw")["received"]
    for seed in range(10):
        front.send(picture(160, 120, seed))
        time.sleep(0.05)
    diagnostics.wait_for_new(3)
    assert health(diagnostics, "engine")["batches"] == before
    assert health(diagnostics, "/front/image_raw")["received"] == received

    # The same with a subscriber shows that the counter counts.
    masks = graph.listen(Image, "/front/segmentation/mask")
    graph.connect(front, masks)
    wait_until(lambda: health(diagnostics, "engine")["batches"] != before, "an inference to be counted")


def test_bad_images_are_named_once_and_the_next_good_one_works(
    graph: Graph, node: Process, front: Camera, segmenter: Segmenter
) -> None:
    masks = graph.listen(Image, "/front/segmentation/mask")
    graph.connect(front, masks)
    image = picture(160, 120)

    def broken(**changes: Any) -> Image:
        message = image_message(image, "bgr8", Header(stamp=graph.node.get_clock().now().to_msg()))
        for field, value in changes.items():
            setattr(message, field, value)
        return message

    bad = {
        "image encoding 'purple8' is not supported": lambda: broken(encoding="purple8"),
        "data of": lambda: broken(data=broken().data[:1000]),
        "image of zero size": lambda: broken(width=0),
    }
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    diagnostics.wait_for(1)
    before = len(node.output())
    for text, make in bad.items():
        for _ in range(4):
            front.publish(make())
            time.sleep(0.05)
        wait_until(lambda text=text: text in health(diagnostics, "/front/image_raw")["last_error"], text)
        stamp = front.send(image)
        np.testing.assert_array_equal(pixels_of(masks.wait_for_stamp(stamp)), segmenter(image).mask)
    assert health(diagnostics, "/front/image_raw")["fault"] == Fault.IMAGE_REFUSED.value
    (line,) = [line for line in node.output()[before:].splitlines() if "ERROR" in line]
    assert "/front/image_raw: image encoding 'purple8' is not supported" in line


def test_groups_come_go_and_change_while_the_node_runs(
    graph: Graph, front: Camera, segmenter: Segmenter
) -> None:
    image = picture(160, 120)
    mask, classes = segmenter(image).mask, segmenter.spec.classes
    *_, second, first = (classes.names[i] for i in np.bincount(mask.ravel(), minlength=11).argsort())
    groups = graph.listen(Image, "/front/segmentation/groups/mine")
    for names in ((first,), (second,), (first, second)):
        assert graph.set_parameter("groups", f"{{mine: [{', '.join(names)}]}}").successful
        graph.connect(front, groups)
        expected = membership_table(names, classes)[mask]

        def has_followed(expected: np.ndarray = expected) -> bool:
            got = groups.wait_for_stamp(front.send(image))
            return bool((pixels_of(got) == expected).all())

        wait_until(has_followed, f"the group of {names}")
    assert graph.get_parameter("groups") == f"{{mine: [{first}, {second}]}}"
    masks = graph.listen(Image, "/front/segmentation/mask")
    graph.connect(front, masks)
    assert graph.set_parameter("groups", "").successful
    wait_until(lambda: not graph.node.count_publishers(groups.topic), "the group's topic to go")
    count = len(groups.messages)
    masks.wait_for_stamp(front.send(image))
    assert len(groups.messages) == count


def test_parameters_that_change_at_any_time(graph: Graph, front: Camera) -> None:
    overlays = graph.listen(Image, "/front/segmentation/overlay")
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    graph.connect(front, overlays)
    image = picture(160, 120)
    assert graph.set_parameter("overlay_alpha", 0.0).successful
    np.testing.assert_array_equal(pixels_of(overlays.wait_for_stamp(front.send(image))), image)
    assert graph.set_parameter("overlay_alpha", 1).successful  # an integer where a number is meant
    assert (pixels_of(overlays.wait_for_stamp(front.send(image))) != image).any()

    assert graph.set_parameter("max_age", 60.0).successful
    old = Header(stamp=rclpy.time.Time(seconds=1e6).to_msg())
    before = wait_until(lambda: health(diagnostics, "/front/image_raw"), "health")
    dropped, over_rate = int(before["dropped_too_old"]), int(before["dropped_over_rate"])
    front.publish(image_message(image, "bgr8", old))
    wait_until(
        lambda: int(health(diagnostics, "/front/image_raw")["dropped_too_old"]) == dropped + 1,
        "the old frame to be dropped",
    )
    unstamped = Header()
    front.publish(image_message(image, "bgr8", unstamped))
    overlays.wait_for_stamp(unstamped.stamp)

    assert graph.set_parameter("max_rate", 0.01).successful
    overlays.wait_for_stamp(front.send(image))
    count = len(overlays.messages)
    for number in range(3):
        front.send(image)
        wait_until(
            lambda number=number: (
                int(health(diagnostics, "/front/image_raw")["dropped_over_rate"]) == over_rate + number + 1
            ),
            "a frame over the rate",
        )
    assert graph.set_parameter("max_rate", 0.0).successful
    overlays.wait_for_stamp(front.send(image))
    assert len(overlays.messages) == count + 1
    for name, value in (("max_age", 0.0), ("overlay_alpha", 0.5)):
        assert graph.set_parameter(name, value).successful


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("resolution", "320", "WIDTHxHEIGHT"),
        ("resolution", "320x240", "deactivate canet first"),
        ("image_topics", ["/other/image_raw"], "deactivate and clean up canet first"),
        ("autostart", False, "read once, when the node starts"),
        ("class_names", ["a", "b"], "class_names is read-only"),
    ],
)
def test_refused_values_have_a_reason(
    graph: Graph, node: Process, name: str, value: Any, reason: str
) -> None:
    result = graph.set_parameter(name, value)
    assert not result.successful
    assert reason in result.reason
