# SPDX-License-Identifier: Apache-2.0
"""Masks of class groups, min_confidence and the temporal filter through real topics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from ros_graph import Camera, Graph, Process, picture, pixels_of, segmentation_node, wait_until
from sensor_msgs.msg import Image

from canet_ros.pipeline.segmenter import Segmenter

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
