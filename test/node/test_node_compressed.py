# SPDX-License-Identifier: Apache-2.0
"""Compressed images in, compressed results out, with a legend and colours for colour-blind people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from ros_graph import Camera, Graph, Process, picture, segmentation_node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from canet_ros.model.palette import recolored
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, colorize, overlay

pytestmark = pytest.mark.ros
RESULTS = "/camera/segmentation"


@pytest.fixture(scope="module")
def node(random_model: Path, graph: Graph) -> Iterator[Process]:
    with segmentation_node(
        random_model, image_transport="compressed", legend=True, palette="colorblind"
    ) as process:
        graph.wait_for_state("active")
        yield process


@pytest.fixture
def camera(graph: Graph, node: Process) -> Iterator[Camera]:
    yield graph.camera("/camera/image_raw/compressed", CompressedImage)
    graph.clear()


def encoded(graph: Graph, pixels: np.ndarray, codec: str) -> CompressedImage:
    header = Header(stamp=graph.node.get_clock().now().to_msg(), frame_id="camera")
    data = cv2.imencode(f".{codec}", pixels)[1]
    encoding = "mono8" if pixels.ndim == 2 else "bgr8"
    return CompressedImage(header=header, format=f"{encoding}; {codec} compressed ", data=data.tobytes())


def decoded(message: CompressedImage) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(("codec", "channels"), [("jpeg", 3), ("png", 1)])
def test_compressed_images_are_segmented_exactly(
    graph: Graph, camera: Camera, segmenter: Segmenter, codec: str, channels: int
) -> None:
    masks = graph.listen(CompressedImage, f"{RESULTS}/mask/compressed")
    graph.connect(camera, masks)
    image = picture(319, 241)
    message = encoded(graph, image if channels == 3 else image[:, :, 0], codec)
    camera.publish(message)
    mask = masks.wait_for_stamp(message.header.stamp)
    np.testing.assert_array_equal(decoded(mask), segmenter(decoded(message)).mask)
    assert mask.format == "mono8; png compressed "
    assert mask.header == message.header


def test_colors_overlay_and_legend(graph: Graph, camera: Camera, segmenter: Segmenter) -> None:
    listeners = {
        name: graph.listen(CompressedImage, f"{RESULTS}/{name}/compressed")
        for name in ("color_mask", "overlay")
    }
    raw_overlays = graph.listen(Image, f"{RESULTS}/overlay")
    graph.connect(camera, *listeners.values(), raw_overlays)
    message = encoded(graph, picture(640, 480), "png")
    camera.publish(message)
    got = {name: listener.wait_for_stamp(message.header.stamp) for name, listener in listeners.items()}

    image = decoded(message)
    mask = segmenter(image).mask
    classes = recolored(segmenter.spec.classes, "colorblind")
    table = color_lookup_table(classes, "bgr")
    np.testing.assert_array_equal(decoded(got["color_mask"]), colorize(mask, table))
    assert got["color_mask"].format == "rgb8; png compressed bgr8"
    assert got["overlay"].format == "bgr8; jpeg compressed bgr8"

    raw = raw_overlays.wait_for_stamp(message.header.stamp)
    drawn = np.frombuffer(raw.data, np.uint8).reshape(480, 640, 3)
    difference = (drawn != overlay(image, mask, table, 0.5)).any(axis=2)
    rows, columns = np.nonzero(difference)
    assert rows.min() <= 2  # the legend is in the upper left corner
    assert columns.min() <= 2
    assert columns.max() < 200
    for color in table[: len(classes)]:
        assert (drawn[:, :200] == color).all(axis=2).any()
    # JPEG is not exact, but it is the same image.
    assert np.abs(decoded(got["overlay"]).astype(int) - drawn).mean() < 8
    assert graph.get_parameter("class_colors") == ["#{:02x}{:02x}{:02x}".format(*c) for c in classes.colors]
