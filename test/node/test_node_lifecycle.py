# SPDX-License-Identifier: Apache-2.0
"""The managed node: transitions in any order, changes between them, failures that do not end it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ros_graph import Graph, Process, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image
from waiting import WAIT_S

from canet_ros.pipeline.segmenter import Segmenter


@pytest.fixture(scope="module")
def process(random_model: Path, graph: Graph) -> Iterator[Process]:
    with segmentation_node(random_model, autostart=False) as process:
        graph.wait_for_state("unconfigured")
        yield process


@pytest.fixture
def node(graph: Graph, process: Process) -> Iterator[Process]:
    yield process
    graph.clear()
    graph.change_state("deactivate")
    for name, value in (("resolution", ""), ("mask_size", "image")):
        assert graph.set_parameter(name, value).successful
    graph.change_state("cleanup")
    assert graph.state() == "unconfigured"


def segmented(graph: Graph, width: int = 320, height: int = 240) -> Image:
    """The mask of one image, over topics of its own."""
    masks = graph.listen(Image, "/camera/segmentation/mask")
    camera = graph.camera()
    graph.connect(camera, masks)
    mask = masks.wait_for_stamp(camera.send(picture(width, height)))
    graph.clear()
    return mask


def test_changes_take_effect_at_activation(graph: Graph, node: Process, random_model: Path) -> None:
    graph.change_state("configure")
    graph.change_state("activate")
    mask = segmented(graph)
    assert (mask.width, mask.height) == (320, 240)
    graph.change_state("deactivate")
    assert graph.set_parameter("resolution", "96x64").successful
    assert graph.set_parameter("mask_size", "network").successful
    assert graph.change_state("activate")
    mask = segmented(graph)
    assert (mask.width, mask.height) == (96, 64)
    segmenter = Segmenter.load(random_model, "cpu", "onnxruntime", "fp32", "96x64")
    expected = segmenter.infer([picture(320, 240)])[0].mask
    np.testing.assert_array_equal(np.frombuffer(mask.data, np.uint8).reshape(64, 96), expected)


def test_twenty_rounds_leave_nothing_behind(graph: Graph, node: Process) -> None:
    rounds = ["activate"] * node.output().count("loaded in")

    def round_trip() -> None:
        for transition in ("configure", "activate", "deactivate", "cleanup"):
            assert graph.change_state(transition), transition
            if transition == "activate":  # which does not wait for the model
                rounds.append(transition)
                wait_until(lambda: node.output().count("loaded in") >= len(rounds), "the model")

    for _ in range(6):
        round_trip()
    before = resources(node.pid)
    for _ in range(14):
        round_trip()
    wait_until(lambda: resources(node.pid)["threads"] <= before["threads"], "all threads to end")
    after = resources(node.pid)
    assert after["files"] <= before["files"] + 2
    assert after["memory_mb"] < before["memory_mb"] + 25  # an engine that stays takes 10 a round


def resources(pid: int) -> dict[str, float]:
    process = Path("/proc") / str(pid)
    pages = int((process / "statm").read_text().split()[1])
    return {
        "threads": len(list((process / "task").iterdir())),
        "files": len(list((process / "fd").iterdir())),
        "memory_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    }


def test_shutdown_transition_and_sigterm(graph: Graph, process: Process) -> None:
    """The last test of this file: it ends the node that the others share."""
    assert graph.change_state("configure")
    assert graph.change_state("shutdown")
    assert graph.state() == "finalized"
    before = len(process.output())
    process.signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
    assert process.output()[before:] == ""
