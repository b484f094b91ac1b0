# SPDX-License-Identifier: Apache-2.0
"""``canet doctor``'s check of the graph beside real nodes in every state in which there are no results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_graph import Graph, Process, picture, ros_arguments, segmentation_node, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import String

from canet_ros.doctor.finding import Finding
from canet_ros.doctor.graph import graph_findings

pytestmark = pytest.mark.ros
CAMERA, MASK = "/camera/image_raw", "/camera/segmentation/mask"


@pytest.fixture
def graph() -> Iterator[Graph]:
    """A new one for each test: it cannot take the last test's node for this one's."""
    graph = Graph()
    yield graph
    graph.close()


class Report:
    """What the doctor finds in the graph."""

    def __init__(self, all_domains: bool = False) -> None:
        self.findings = list(graph_findings(all_domains))

    def of(self, subject: str) -> Finding:
        return next(finding for finding in self.findings if finding.subject == subject)

    def why(self, node: str = "/canet") -> Finding:
        """The one sentence about a node."""
        (finding,) = [finding for finding in self.findings if finding.subject == f"node {node}"]
        return finding


def test_without_a_node_one_in_another_domain_is_pointed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path(sys.executable).parent / "segmentation_node"
    if not program.exists():
        pytest.skip("the package is not installed")
    process = Process([sys.executable, str(program), *ros_arguments({"autostart": False})])
    try:
        command = Path(f"/proc/{process.pid}/cmdline")
        wait_until(lambda: b"segmentation_node" in command.read_bytes(), "the node")
        monkeypatch.setenv("ROS_DOMAIN_ID", "103")
        finding = Report().of("running nodes")
        assert "no segmentation node in ROS_DOMAIN_ID 103" in finding.text
        assert "process" not in finding.advice
        assert "--all-domains" in finding.advice
        assert f"process {process.pid} is a node in" in Report(all_domains=True).of("running nodes").advice
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
        report = Report()
        assert "there are no image topics" in report.why().text
        assert "ROS_DOMAIN_ID" in report.why().advice

        camera = graph.camera("/camera/image_raw")
        report = Report()
        assert report.why().verdict == "ok"
        assert "its results have no subscriber" in report.why().text

        masks = graph.listen(Image, MASK)
        graph.connect(camera, masks)
        stop = threading.Event()

        def send() -> None:
            while not stop.wait(0.1):
                camera.send(picture(160, 120))

        sender = threading.Thread(target=send)
        sender.start()
        report = Report()
        assert report.why().verdict == "ok"
        assert re.search(r"/canet is active: \d+\.\d Hz", report.why().text)
        durability = DurabilityPolicy.TRANSIENT_LOCAL
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        graph.listen(Image, MASK, qos)
        assert f"a subscriber of {MASK} receives nothing" in Report().of(CAMERA).text
        graph.camera(CAMERA)
        assert "2 publishers send images on this topic" in Report().why().text
        stop.set()
        sender.join()
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
        report = Report()
    graph.clear()
    assert report.why().verdict == "note"
    assert "its reliability is incompatible with this subscription" in report.why().text
    assert "carries std_msgs/msg/String, not sensor_msgs/msg/Image" in report.of("/rear/image_raw").text
