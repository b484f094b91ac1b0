# SPDX-License-Identifier: Apache-2.0
"""Values on /diagnostics agree with measurements from outside; cameras and clocks that fail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_graph import Graph, Listener, Process, health, picture, segmentation_node, wait_until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from canet_ros.ros.image_conversion import image_message

pytestmark = pytest.mark.ros
FRONT, REAR = "/front/image_raw", "/rear/image_raw"
MASK = "/front/segmentation/mask"
RATE_HZ, SECONDS = 120, float(os.environ.get("CANET_TEST_OVERLOAD_S", "6"))
OK, WARN, ERROR = (
    str(level[0]) for level in (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR)
)


@pytest.fixture(scope="module")
def node(random_model: Path, graph: Graph) -> Iterator[Process]:
    reliable = {f"qos_overrides.{REAR}.subscription.reliability": "reliable"}
    with segmentation_node(
        random_model, image_topics=f"['{FRONT}', '{REAR}']", stale_after=0.5, **reliable
    ) as process:
        graph.wait_for_state("active")
        yield process


@pytest.fixture
def diagnostics(graph: Graph, node: Process) -> Iterator[Listener]:
    listener = graph.listen(DiagnosticArray, "/diagnostics")
    listener.wait_for(1)
    yield listener
    graph.clear()


def test_images_that_the_middleware_loses_are_counted(
    graph: Graph, node: Process, diagnostics: Listener
) -> None:
    """An image of 36 MB does not fit into the 32 MB of shared memory that a process has here while nobody reads it."""
    masks = graph.listen(Image, MASK)
    camera = graph.camera(FRONT)
    graph.connect(camera, masks)
    diagnostics.wait_for_new(2)
    before = health(diagnostics, FRONT)
    too_large = np.zeros((3000, 4000, 3), np.uint8)
    node.signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            camera.send(too_large)
    finally:
        node.signal(signal.SIGCONT)
    sent = 3 + graph.connect(camera, masks)  # the one that arrives tells of those before it
    diagnostics.wait_for_new(2)
    came, lost = (int(health(diagnostics, FRONT)[name]) - int(before[name]) for name in ("received", "lost"))
    assert lost >= 2  # the first may have been read to its end afterwards
    assert came + lost == sent


def test_a_qos_that_does_not_fit_is_named_on_either_side(
    graph: Graph, node: Process, diagnostics: Listener
) -> None:
    graph.listen(Image, "/rear/segmentation/mask")
    graph.camera(REAR)  # best effort, where the override asks for reliable
    node.wait_for_output(f"nothing received from a publisher of {REAR}")
    assert f"qos_overrides.{REAR}.subscription.reliability to best_effort" in node.output()
    wait_until(lambda: "publisher" in health(diagnostics, REAR)["message"], "diagnostics")
    assert health(diagnostics, REAR)["level"] == ERROR

    latched = QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )
    graph.listen(Image, MASK, latched)
    node.wait_for_output(f"a subscriber of {MASK} receives nothing")
    assert f"qos_overrides.{MASK}.publisher.durability to transient_local" in node.output()
    wait_until(lambda: int(health(diagnostics, FRONT)["qos_problems"]) > 0, "diagnostics to count it")


def test_a_clock_that_jumps(graph: Graph, diagnostics: Listener) -> None:
    """A bag that is played in a loop under sim time, with limits on age and rate."""
    clock = graph.node.create_publisher(Clock, "/clock", 10)
    masks = graph.listen(Image, MASK)
    camera = graph.camera(FRONT)
    graph.connect(camera, masks)
    image = picture(160, 120)

    def play(start_s: float) -> None:
        for number in range(8):
            header = Header()
            header.stamp.sec, header.stamp.nanosec = divmod(int((start_s + number * 0.1) * 1e9), 10**9)
            clock.publish(Clock(clock=header.stamp))
            if number == 0:  # an image that overtook the clock's jump back would be too old
                wait_until(lambda now=header.stamp: diagnostics.messages[-1].header.stamp == now, "its time")
            time.sleep(0.05)  # longer than max_rate's period
            camera.publish(image_message(image, "bgr8", header))
            masks.wait_for_stamp(header.stamp)

    try:
        for name, value in (("use_sim_time", True), ("max_age", 1.0), ("max_rate", 30.0)):
            assert graph.set_parameter(name, value).successful
        wait_until(clock.get_subscription_count, "the node to listen to the clock")
        for start_s in (1000.0, 1000.0, 500.0, 2000.0, 500.0):
            masks.messages.clear()
            play(start_s)
        diagnostics.wait_for_new(2)
        values = health(diagnostics, FRONT)
        assert float(values["age_p95_ms"]) < 1000
        assert int(values["dropped_too_old"]) == 0
    finally:
        for name, value in (("use_sim_time", False), ("max_age", 0.0), ("max_rate", 0.0)):
            graph.set_parameter(name, value)
        graph.node.destroy_publisher(clock)


def memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_every_image_of_1080p_at_120_hz_is_accounted_for(
    graph: Graph, node: Process, diagnostics: Listener
) -> None:
    """Ages are printed, not asserted: they depend on the machine."""
    masks = graph.listen(Image, MASK)
    camera = graph.camera(FRONT)
    graph.connect(camera, masks)
    diagnostics.wait_for_new(2)
    before = health(diagnostics, FRONT)
    message = image_message(picture(1920, 1080), "bgr8", Header(frame_id="camera"))
    count, sent, memories_mb = len(masks.messages), 0, []
    start_s = time.monotonic()
    while sent < RATE_HZ * SECONDS:
        time.sleep(max(0.0, start_s + sent / RATE_HZ - time.monotonic()))
        message.header.stamp = camera.now()
        camera.publish(message)
        sent += 1
        if sent % 60 == 0:
            memories_mb.append(memory_mb(node.pid))
    ages_s = [
        arrival_s - m.header.stamp.sec - m.header.stamp.nanosec / 1e9
        for m, arrival_s in zip(masks.messages[count:], masks.arrivals_s[count:])
    ]
    # What was lost at the end is known with the next image.
    sent += graph.connect(camera, masks)

    def accounted() -> bool:
        new = health(diagnostics, FRONT)
        counts = {
            name: int(new[name]) - int(before[name]) for name in ("received", "published", "dropped", "lost")
        }
        print(f"sent {sent}, {counts}")
        fates = counts["published"] + counts["dropped"]
        return counts["received"] == fates and fates + counts["lost"] == sent

    wait_until(accounted, "every image that was sent to be published, dropped or lost")
    assert ages_s
    print(
        f"age of {len(ages_s)} masks: median {np.median(ages_s) * 1e3:.0f} ms, largest {max(ages_s) * 1e3:.0f} ms"
    )
    print(f"inference p50 {health(diagnostics, 'engine')['inference_p50_ms']} ms; memory {memories_mb} MB")
    half = len(memories_mb) // 2
    # Ten images of 700 sent; a few more or less are on their way at any moment.
    assert max(memories_mb[half:]) < max(memories_mb[:half]) + 62
