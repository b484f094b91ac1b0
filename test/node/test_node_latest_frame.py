# SPDX-License-Identifier: Apache-2.0
"""With a slow engine, inference takes the newest frame, drops are counted, and a signal ends the process at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Graph, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros
SLOW_NODE = (str(Path(__file__).parent / "slow_node.py"),)
CAMERA = "/camera/image_raw"
# What may pass between taking a frame and starting its inference, on a busy machine.
SLACK_S = 0.15


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.close()


def nanoseconds(message: Image) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_inference_takes_the_newest_frame(
    random_model: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANET_TEST_SLEEP_S", "0.4")
    with segmentation_node(random_model, SLOW_NODE) as process:
        graph.wait_for_state("active")
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        masks = graph.listen(Image, "/camera/segmentation/mask")
        camera = graph.camera()
        graph.connect(camera, masks)
        diagnostics.wait_for(len(diagnostics.messages) + 3)
        before, lines_before = health(diagnostics, CAMERA), len(process.output().splitlines())
        masks.messages.clear()
        image = picture(320, 240)
        end_s = time.monotonic() + 4
        while time.monotonic() < end_s:
            last = camera.send(image)
            time.sleep(1 / 30)

        masks.wait_for_stamp(last)
        diagnostics.wait_for(len(diagnostics.messages) + 2)
        lines = [line.split() for line in process.output().splitlines()[lines_before:]]
        received = [(int(words[2]), float(words[3])) for words in lines if words[0] == "received"]
        starts_s = [float(words[1]) for words in lines if words[0] == "inference"]
        assert len(received) > 60
        assert 6 <= len(masks.messages) == len(starts_s) <= 11
        for start_s, mask in zip(starts_s, masks.messages):
            older_ns = [stamp_ns for stamp_ns, arrival_s in received if arrival_s < start_s - SLACK_S]
            assert all(stamp_ns <= nanoseconds(mask) for stamp_ns in older_ns)

        after = health(diagnostics, CAMERA)
        counts = {
            name: int(after[name]) - int(before[name])
            for name in ("received", "published", "dropped_replaced")
        }
        assert counts == {
            "received": len(received),
            "published": len(masks.messages),
            "dropped_replaced": len(received) - len(masks.messages),
        }
        # An engine that fails costs its frame, not the node.
        camera.send(np.full((240, 320, 3), 255, np.uint8))
        wait_until(lambda: health(diagnostics, "engine")["failures"] == "1", "the failure to be counted")
        assert "the engine broke" in health(diagnostics, "engine")["message"]
        assert health(diagnostics, CAMERA)["dropped_failed"] == "1"
        masks.wait_for_stamp(camera.send(image))
