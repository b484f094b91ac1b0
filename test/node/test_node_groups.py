# SPDX-License-Identifier: Apache-2.0
"""Masks of class groups, min_confidence and the temporal filter through real topics."""

from __future__ import annotations

import array
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from ros_graph import Camera, Graph, Process, picture, pixels_of, segmentation_node, wait_until
from sensor_msgs.msg import CompressedImage, Image

from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, colorize, overlay

pytestmark = pytest.mark.ros
PREFIX = "/camera/segmentation"
GROUPS = "{flat: [road, pavement], people: [pedestrian, bicyclist], other: [sky]}"


@pytest.fixture(scope="module")
def node(sharp_model: Path, graph: Graph) -> Iterator[Process]:
    with segmentation_node(sharp_model, groups=f"'{GROUPS}'") as process:
        graph.wait_for_state("active")
        yield process


@pytest.fixture
def camera(graph: Graph, node: Process) -> Iterator[Camera]:
    yield graph.camera()
    graph.clear()
    assert graph.set_parameter("groups", GROUPS).successful
    assert graph.set_parameter("min_confidence", 0.0).successful


def members(sharp_segmenter: Segmenter, mask: np.ndarray, *names: str) -> np.ndarray:
    ids = [sharp_segmenter.spec.classes.names.index(name) for name in names]
    return np.where(np.isin(mask, ids), 255, 0).astype(np.uint8)


def names_in(sharp_segmenter: Segmenter, image: np.ndarray) -> list[str]:
    """Classes that the model finds in an image, the most frequent first."""
    counts = np.bincount(sharp_segmenter(image).mask.ravel(), minlength=11)
    return [sharp_segmenter.spec.classes.names[i] for i in np.argsort(-counts) if counts[i]]


@pytest.mark.parametrize("size", [(320, 240), (161, 93)])
def test_a_group_is_255_where_its_classes_are(
    graph: Graph, camera: Camera, sharp_segmenter: Segmenter, size: tuple[int, int]
) -> None:
    image = picture(*size)
    first, second, *_ = names_in(sharp_segmenter, image)
    assert graph.set_parameter("groups", f"{{one: [{first}], both: [{first}, {second}]}}").successful
    raw = {name: graph.listen(Image, f"{PREFIX}/groups/{name}") for name in ("one", "both")}
    png = graph.listen(CompressedImage, f"{PREFIX}/groups/both/compressed")
    graph.connect(camera, *raw.values(), png)
    stamp = camera.send(image, frame_id="front_optical")
    mask = sharp_segmenter(image).mask
    expected = {
        "one": members(sharp_segmenter, mask, first),
        "both": members(sharp_segmenter, mask, first, second),
    }
    for name, listener in raw.items():
        message = listener.wait_for_stamp(stamp)
        assert (message.encoding, message.header.frame_id) == ("mono8", "front_optical")
        np.testing.assert_array_equal(pixels_of(message), expected[name], err_msg=name)
        assert set(np.unique(expected[name])) == {0, 255}
    message = png.wait_for_stamp(stamp)
    assert message.format == "mono8; png compressed "
    decoded = cv2.imdecode(np.frombuffer(array.array("B", message.data), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, expected["both"])


def test_groups_come_go_and_change_while_the_node_runs(
    graph: Graph, camera: Camera, sharp_segmenter: Segmenter
) -> None:
    image = picture(160, 120)
    mask = sharp_segmenter(image).mask
    first, second, *_ = names_in(sharp_segmenter, image)
    groups = graph.listen(Image, f"{PREFIX}/groups/mine")
    for names in ((first,), (second,), (first, second)):
        assert graph.set_parameter("groups", f"{{mine: [{', '.join(names)}]}}").successful
        graph.connect(camera, groups)
        expected = members(sharp_segmenter, mask, *names)

        def has_followed(expected: np.ndarray = expected) -> bool:
            got = groups.wait_for_stamp(camera.send(image))
            return bool((pixels_of(got) == expected).all())

        wait_until(has_followed, f"the group of {names}")
    assert graph.get_parameter("groups") == f"{{mine: [{first}, {second}]}}"
    masks = graph.listen(Image, f"{PREFIX}/mask")
    graph.connect(camera, masks)
    assert graph.set_parameter("groups", "").successful
    wait_until(lambda: not graph.node.count_publishers(groups.topic), "the group's topic to go")
    count = len(groups.messages)
    masks.wait_for_stamp(camera.send(image))
    assert len(groups.messages) == count


def test_unsure_pixels_are_unlabelled_in_every_result_but_the_confidence(
    graph: Graph, camera: Camera, sharp_segmenter: Segmenter
) -> None:
    image = picture(320, 240)
    found = sharp_segmenter(image)
    levels = np.unique(found.confidence)
    level = levels[len(levels) // 2]
    sure = np.where(found.confidence >= level, found.mask, 255).astype(np.uint8)
    assert 0 < (sure == 255).mean() < 1
    first = names_in(sharp_segmenter, image)[0]
    assert graph.set_parameter("groups", f"{{mine: [{first}]}}").successful
    assert graph.set_parameter("min_confidence", float(level) / 255).successful
    names = ("mask", "color_mask", "overlay", "confidence", "groups/mine")
    listeners = {name: graph.listen(Image, f"{PREFIX}/{name}") for name in names}
    graph.connect(camera, *listeners.values())
    stamp = camera.send(image)
    got = {name: pixels_of(listener.wait_for_stamp(stamp)) for name, listener in listeners.items()}
    table = color_lookup_table(sharp_segmenter.spec.classes, "rgb")
    expected = {
        "mask": sure,
        "color_mask": colorize(sure, table),
        "overlay": overlay(image, sure, np.ascontiguousarray(table[:, ::-1]), 0.5),
        "confidence": found.confidence,
        "groups/mine": members(sharp_segmenter, sure, first),
    }
    for name, pixels in expected.items():
        np.testing.assert_array_equal(got[name], pixels, err_msg=name)
    assert graph.set_parameter("min_confidence", 0).successful
    stamp = camera.send(image)
    np.testing.assert_array_equal(pixels_of(listeners["mask"].wait_for_stamp(stamp)), found.mask)
    assert not graph.set_parameter("min_confidence", 1.5).successful
