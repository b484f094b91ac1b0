# SPDX-License-Identifier: Apache-2.0
"""Compressed images in, compressed results out, with a legend and colours for colour-blind people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from ros_graph import Camera, Graph, Process, picture, segmentation_node
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from canet_ros.model.palette import recolored
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, colorize, draw_legend, overlay

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
    listeners = {
        name: graph.listen(CompressedImage, f"{RESULTS}/{name}/compressed")
        for name in ("mask", "color_mask", "overlay")
    }
    graph.connect(camera, *listeners.values())
    image = picture(319, 241)
    message = encoded(graph, image if channels == 3 else image[:, :, 0], codec)
    camera.publish(message)
    got = {name: listener.wait_for_stamp(message.header.stamp) for name, listener in listeners.items()}
    image = decoded(message)
    mask = segmenter(image).mask
    np.testing.assert_array_equal(decoded(got["mask"]), mask)
    assert got["mask"].format == "mono8; png compressed "
    assert got["mask"].header == message.header
    classes = recolored(segmenter.spec.classes, "colorblind")
    table = color_lookup_table(classes, "bgr")
    np.testing.assert_array_equal(decoded(got["color_mask"]), colorize(mask, table))
    assert got["color_mask"].format == "rgb8; png compressed bgr8"
    assert got["overlay"].format == "bgr8; jpeg compressed bgr8"
    expected = overlay(image if image.ndim == 3 else np.dstack([image] * 3), mask, table, 0.5)
    draw_legend(expected, classes)
    # JPEG is not exact, but it is the same image.
    assert np.abs(decoded(got["overlay"]).astype(int) - expected).mean() < 8
    assert graph.get_parameter("class_colors") == ["#{:02x}{:02x}{:02x}".format(*c) for c in classes.colors]
