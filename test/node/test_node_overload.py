# SPDX-License-Identifier: Apache-2.0
"""Overload, and a camera that comes and goes: every image is accounted for, and memory does not grow.

Ages are printed, not asserted: they depend on the machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Graph, Process, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from canet_ros.ros.image_conversion import image_message

pytestmark = pytest.mark.ros
CAMERA, MASK = "/camera/image_raw", "/camera/segmentation/mask"
RATE_HZ, SECONDS = 120, float(os.environ.get("CANET_TEST_OVERLOAD_S", "6"))


@pytest.fixture(scope="module")
def node(random_model: Path, graph: Graph) -> Iterator[Process]:
    with segmentation_node(random_model) as process:
        graph.wait_for_state("active")
        yield process


def memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_every_image_of_1080p_at_120_hz_is_accounted_for(graph: Graph, node: Process) -> None:
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    masks = graph.listen(Image, MASK)
    camera = graph.camera(CAMERA)
    graph.connect(camera, masks)
    diagnostics.wait_for(len(diagnostics.messages) + 3)
    before = health(diagnostics, CAMERA)
    message = image_message(picture(1920, 1080), "bgr8", Header(frame_id="camera"))
    count, sent, memories_mb = len(masks.messages), 0, []
    start_s = time.monotonic()
    while (now_s := time.monotonic() - start_s) < SECONDS:
        if now_s * RATE_HZ >= sent:
            message.header.stamp = camera.now()
            camera.publish(message)
            sent += 1
            if sent % 60 == 0:
                memories_mb.append(memory_mb(node.pid))
        time.sleep(0.001)
    ages_s = [
        arrival_s - m.header.stamp.sec - m.header.stamp.nanosec / 1e9
        for m, arrival_s in zip(masks.messages[count:], masks.arrivals_s[count:])
    ]
    # What was lost at the end is known with the next image.
    last = camera.send(picture(160, 120))
    masks.wait_for_stamp(last)
    sent += 1

    def accounted() -> bool:
        new = health(diagnostics, CAMERA)
        counts = {
            name: int(new[name]) - int(before[name]) for name in ("received", "published", "dropped", "lost")
        }
        print(f"sent {sent}, {counts}")
        fates = counts["published"] + counts["dropped"]
        return counts["received"] == fates and fates + counts["lost"] == sent

    wait_until(accounted, "every image that was sent to be published, dropped or lost", 5)
    assert ages_s
    print(
        f"age of {len(ages_s)} masks: median {np.median(ages_s) * 1e3:.0f} ms, largest {max(ages_s) * 1e3:.0f} ms"
    )
    print(f"inference p50 {health(diagnostics, 'engine')['inference_p50_ms']} ms; memory {memories_mb} MB")
    half = len(memories_mb) // 2
    # Ten images of 700 sent; a few more or less are on their way at any moment.
    assert max(memories_mb[half:]) < max(memories_mb[:half]) + 62
