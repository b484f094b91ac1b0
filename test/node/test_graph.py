# SPDX-License-Identifier: Apache-2.0
"""``canet doctor``'s check of the graph beside real nodes in every state in which there are no results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_graph import Graph, Process, picture, ros_arguments, segmentation_node, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import String

from canet_ros.doctor.finding import Finding
from canet_ros.doctor.graph import graph_findings

NODE, CAMERA, MASK = "node /canet", "/camera/image_raw", "/camera/segmentation/mask"


@pytest.fixture
def graph() -> Iterator[Graph]:
    """A new one for each test: it cannot take the last test's node for this one's."""
    graph = Graph()
    yield graph
    graph.close()


def report(all_domains: bool = False) -> dict[str, Finding]:
    """What the doctor finds in the graph, by subject; the one sentence about a node is that of ``node /canet``."""
    return {finding.subject: finding for finding in graph_findings(all_domains)}


def test_without_a_node_one_in_another_domain_is_pointed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path(sys.executable).parent / "segmentation_node"
    if not program.exists():
        pytest.skip("the package is not installed")
    process = Process([sys.executable, str(program), *ros_arguments({"autostart": False})])
    try:
        command = Path(f"/proc/{process.pid}/cmdline")
        wait_until(lambda: b"segmentation_node" in command.read_bytes(), "the node")
        monkeypatch.setenv("ROS_DOMAIN_ID", "103")
        finding = report()["running nodes"]
        assert "no segmentation node in ROS_DOMAIN_ID 103" in finding.text
        assert "process" not in finding.advice
        assert "--all-domains" in finding.advice
        assert f"process {process.pid} is a node in" in report(all_domains=True)["running nodes"].advice
    finally:
        process.close()


def test_the_command_names_a_misspelt_camera_topic(graph: Graph, random_model: Path, tmp_path: Path) -> None:
    graph.camera("/camera/image_raw")
    command = [sys.executable, "-m", "canet_ros.cli", "doctor", "--graph-only", "--json", str(tmp_path / "f")]
    with segmentation_node(random_model, image_topics="['/camera/image_rwa']"):
        graph.wait_for_state("active")
        done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
    findings = {f["subject"]: f for f in json.loads((tmp_path / "f").read_text())["findings"]}
    why = findings["node /canet"]
    assert "no publisher of /camera/image_rwa; existing image topics: /camera/image_raw" in why["text"]
    assert "set image_topics to the camera's topic" in why["advice"]
    assert findings["/camera/image_rwa"]["verdict"] == "note"
    assert done.stdout.rstrip().endswith(why["text"])


def test_an_active_node(graph: Graph, random_model: Path) -> None:
    """Without a camera; with nobody who wants results; with results; with two cameras; with the wrong subscriber."""
    with segmentation_node(random_model):
        graph.wait_for_state("active")
        why = report()[NODE]
        assert "there are no image topics" in why.text
        assert "ROS_DOMAIN_ID" in why.advice

        camera = graph.camera("/camera/image_raw")
        why = report()[NODE]
        assert why.verdict == "ok"
        assert "its results have no subscriber" in why.text

        masks = graph.listen(Image, MASK)
        graph.connect(camera, masks)
        sender = graph.node.create_timer(0.1, lambda: camera.send(picture(160, 120)))
        why = report()[NODE]
        assert why.verdict == "ok"
        assert re.search(r"/canet is active: \d+\.\d Hz", why.text)
        durability = DurabilityPolicy.TRANSIENT_LOCAL
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        graph.listen(Image, MASK, qos)
        assert f"a subscriber of {MASK} receives nothing" in report()[CAMERA].text
        graph.camera(CAMERA)
        found = report()
        assert "2 publishers send images on this topic" in found[NODE].text
        assert f"a subscriber of {MASK} receives nothing" in found[CAMERA].text
        graph.node.destroy_timer(sender)
    graph.clear()


def test_a_camera_that_does_not_fit(graph: Graph, random_model: Path) -> None:
    """By its quality of service, and by its type."""
    graph.camera("/camera/image_raw")  # best effort
    graph.camera("/rear/image_raw", String)
    graph.listen(Image, MASK)
    topics = "['/camera/image_raw', '/rear/image_raw']"
    override = {"qos_overrides./camera/image_raw.subscription.reliability": "reliable"}
    with segmentation_node(random_model, image_topics=topics, **override):
        graph.wait_for_state("active")
        wait_until(lambda: graph.node.count_subscribers("/camera/image_raw"), "the node's subscription")
        found = report()
    graph.clear()
    assert found[NODE].verdict == "note"
    assert "its reliability is incompatible with this subscription" in found[NODE].text
    assert "carries std_msgs/msg/String, not sensor_msgs/msg/Image" in found["/rear/image_raw"].text
