# SPDX-License-Identifier: Apache-2.0
"""``canet record`` of a real node and camera over DDS; killed; and what it wrote segmented again."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import drives
import numpy as np
import pytest

pytest.importorskip("rclpy")

from drives import Segment, read_bag
from ros_graph import Graph, Process, picture, segmentation_node, wait_until
from waiting import WAIT_S

from canet_ros.bags.reading import open_bag


@pytest.fixture
def graph() -> Iterator[Graph]:
    """One for each test: a client that knew a node of the same name, which is gone, may wait for it in vain."""
    graph = Graph()
    yield graph
    graph.close()


@pytest.mark.ros
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_drive_with_its_masks_is_recorded_and_can_be_segmented_again(
    ending: signal.Signals, random_model: Path, segment: Segment, tmp_path: Path, graph: Graph
) -> None:
    """The offline mask is the node's, pixel for pixel; a recorder that is killed leaves what it had."""
    camera = graph.camera()
    masks = "/camera/segmentation/mask/compressed"
    with segmentation_node(random_model):
        graph.wait_for_state("active")
        process = Process([sys.executable, "-m", "canet_ros.cli", "record", str(tmp_path / "drive")])
        try:
            process.wait_for_output("recording")
            camera.wait_for_subscriber()
            file = tmp_path / "drive" / "drive_0.mcap"
            number = 0

            def recorded() -> bool:
                nonlocal number
                camera.send(picture(160, 120, seed=number))
                number += 1
                with open_bag(file, tmp_path / "work") as opened:
                    found = [message.connection.topic for message in opened.messages()]
                return found.count(masks) >= 3 and found.count("/camera/image_raw") >= 3

            wait_until(recorded, "three recorded masks")
            process.signal(ending)
            status = process.wait(WAIT_S)
        finally:
            process.close()
    assert status == (0 if ending == signal.SIGINT else -signal.SIGKILL)
    graph.clear()
    source = tmp_path / "drive"
    assert segment(source, tmp_path / "out") == (0 if ending == signal.SIGINT else 3)
    # The node's masks are replaced by ours: they must be the same.
    with open_bag(file, tmp_path / "work") as opened:
        by_node = {
            drives.stamp(message.data): message.data
            for message in opened.messages()
            if message.connection.topic == masks
        }
    ours = {
        drives.stamp(message.data): message.data
        for message in read_bag(tmp_path / "out")
        if message.topic == masks
    }
    shared = by_node.keys() & ours.keys()
    assert len(shared) >= 2
    for stamp in shared:
        assert np.array_equal(drives.pixels(by_node[stamp]), drives.pixels(ours[stamp]))
