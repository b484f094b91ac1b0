# SPDX-License-Identifier: Apache-2.0
"""``canet doctor --graph-only`` beside real nodes in every state in which there are no results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_graph import Graph, Process, ros_arguments, segmentation_node, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import String

pytestmark = pytest.mark.ros


@pytest.fixture
def graph() -> Iterator[Graph]:
    """A new one for each test: it cannot take the last test's node for this one's."""
    graph = Graph()
    yield graph
    graph.close()


class Report:
    """What the doctor says of the graph."""

    def __init__(self, folder: Path, *options: str, **variables: str) -> None:
        file = folder / "graph.json"
        command = [
            sys.executable,
            "-m",
            "canet_ros.cli",
            "doctor",
            "--graph-only",
            "--force",
            "--json",
            str(file),
            *options,
        ]
        self.done = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in self.done.stderr
        self.findings: list[dict[str, Any]] = json.loads(file.read_text())["findings"]

    def of(self, subject: str) -> list[dict[str, Any]]:
        return [finding for finding in self.findings if finding["subject"] == subject]

    def why(self, node: str = "/canet") -> dict[str, Any]:
        """The one sentence about a node."""
        (finding,) = self.of(f"node {node}")
        return finding


def test_no_node(graph: Graph, tmp_path: Path) -> None:
    report = Report(tmp_path)
    assert "no segmentation node in ROS_DOMAIN_ID" in report.of("running nodes")[0]["text"]
    assert report.done.returncode == 0


def test_a_node_in_another_domain_is_pointed_at(graph: Graph, random_model: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "segmentation_node"
    if not program.exists():
        pytest.skip("the package is not installed")
    process = Process([sys.executable, str(program), *ros_arguments({"autostart": False})])
    try:
        wait_until(
            lambda: b"segmentation_node" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "the node"
        )
        (finding,) = Report(tmp_path, ROS_DOMAIN_ID="103").of("running nodes")
        assert "process" not in finding["advice"]
        assert "--all-domains" in finding["advice"]
        report = Report(tmp_path, "--all-domains", ROS_DOMAIN_ID="103")
        (finding,) = report.of("running nodes")
        assert "no segmentation node in ROS_DOMAIN_ID 103" in finding["text"]
        assert f"process {process.pid} is one in ROS_DOMAIN_ID" in finding["advice"]
    finally:
        process.close()


def test_a_misspelt_camera_topic(graph: Graph, random_model: Path, tmp_path: Path) -> None:
    graph.camera("/camera/image_raw")
    with segmentation_node(random_model, image_topics="['/camera/image_rwa']"):
        graph.wait_for_state("active")
        report = Report(tmp_path)
    graph.clear()
    assert report.why()["text"] == (
        "/canet receives no images: no publisher of /camera/image_rwa; "
        "existing image topics: /camera/image_raw"
    )
    assert "set image_topics to the camera's topic" in report.why()["advice"]
    assert report.of("/camera/image_rwa")[0]["verdict"] == "note"
    assert report.done.returncode == 0
    assert report.done.stdout.rstrip().endswith(report.why()["text"])


def test_no_camera_at_all(graph: Graph, random_model: Path, tmp_path: Path) -> None:
    with segmentation_node(random_model):
        graph.wait_for_state("active")
        report = Report(tmp_path)
    assert "there are no image topics" in report.why()["text"]
    assert "ROS_DOMAIN_ID" in report.why()["advice"]


def test_nobody_wants_results(graph: Graph, random_model: Path, tmp_path: Path) -> None:
    graph.camera("/camera/image_raw")
    with segmentation_node(random_model):
        graph.wait_for_state("active")
        report = Report(tmp_path)
    graph.clear()
    assert report.why()["verdict"] == "ok"
    assert "its results have no subscriber" in report.why()["text"]


def test_results_come(graph: Graph, random_model: Path, tmp_path: Path) -> None:
    camera = graph.camera("/camera/image_raw")
    masks = graph.listen(Image, "/camera/segmentation/mask")
    with segmentation_node(random_model):
        graph.connect(camera, masks)
        report = Report(tmp_path)
    graph.clear()
    assert report.of("/camera/segmentation/mask") == [
        {"subject": "/camera/segmentation/mask", "verdict": "ok", "text": "to /test", "advice": ""}
    ]
    assert report.of("/camera/image_raw")[0]["text"] == "published by /test"


@pytest.mark.parametrize(("state", "advice"), [("unconfigured", "configure"), ("inactive", "activate")])
def test_a_node_that_is_not_active(
    state: str, advice: str, graph: Graph, random_model: Path, tmp_path: Path
) -> None:
    with segmentation_node(random_model, autostart=False):
        if state == "inactive":
            assert graph.change_state("configure")
        graph.wait_for_state(state)
        report = Report(tmp_path)
    assert f"it is {state}" in report.why()["text"]
    assert f"ros2 lifecycle set /canet {advice}" in report.why()["advice"]


def test_a_model_that_does_not_load(graph: Graph, random_model: Path, tmp_path: Path) -> None:
    with segmentation_node(tmp_path / "nowhere") as node:
        node.wait_for_output("nowhere")
        report = Report(tmp_path)
    assert "publishes no results" in report.why()["text"]
    assert "nowhere" in " ".join(finding["text"] for finding in report.findings)


def test_a_camera_whose_quality_of_service_does_not_fit(
    graph: Graph, random_model: Path, tmp_path: Path
) -> None:
    graph.camera("/camera/image_raw")  # best effort
    masks = graph.listen(Image, "/camera/segmentation/mask")
    override = {"qos_overrides./camera/image_raw.subscription.reliability": "reliable"}
    with segmentation_node(random_model, **override):
        graph.wait_for_state("active")
        wait_until(lambda: graph.node.count_subscribers("/camera/image_raw"), "the node's subscription")
        report = Report(tmp_path)
    del masks
    graph.clear()
    assert report.why()["verdict"] == "note"
    assert "QoS of /test and /canet is incompatible on /camera/image_raw" in report.why()["text"]
    assert "est effort publisher and reliable subscription" in report.why()["text"]


def test_a_subscriber_that_asks_for_more_than_is_offered(
    graph: Graph, random_model: Path, tmp_path: Path
) -> None:
    qos = QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )
    graph.listen(Image, "/camera/segmentation/mask", qos)
    with segmentation_node(random_model):
        graph.wait_for_state("active")
        report = Report(tmp_path)
    graph.clear()
    texts = [finding["text"] for finding in report.of("/camera/segmentation/mask")]
    assert any("/test receives nothing from /canet: QoS is incompatible" in text for text in texts)


def test_two_cameras_on_a_topic_and_no_clock(graph: Graph, random_model: Path, tmp_path: Path) -> None:
    graph.camera("/camera/image_raw")
    graph.camera("/camera/image_raw")
    with segmentation_node(random_model, use_sim_time=True):
        graph.wait_for_state("active")
        report = Report(tmp_path)
    graph.clear()
    assert "2 publishers send images on this topic" in report.of("/camera/image_raw")[0]["text"]
    assert "/clock has no publisher" in report.of("/clock")[0]["text"]


def test_one_of_several_nodes(graph: Graph, random_model: Path, tmp_path: Path) -> None:
    with segmentation_node(random_model, namespace="/front", autostart=False):
        graph.wait_for_state("unconfigured", "/front/canet")
        report = Report(tmp_path, "--node", "front/canet")
        misspelt = Report(tmp_path, "--node", "/front/cannet")
    assert "unconfigured" in report.why("/front/canet")["text"]
    assert "running: /front/canet" in misspelt.why("/front/cannet")["text"]


def test_a_topic_without_pictures_and_results_of_two(
    graph: Graph, random_model: Path, tmp_path: Path
) -> None:
    graph.camera("/camera/image_raw", String)
    graph.camera("/camera/segmentation/mask")
    with segmentation_node(random_model):
        graph.wait_for_state("active")
        report = Report(tmp_path)
    graph.clear()
    expected = "/test publishes std_msgs/msg/String on /camera/image_raw, which /canet does not support"
    assert report.of("/camera/image_raw")[0]["text"] == expected
    assert "also published by /test" in [
        finding["text"] for finding in report.of("/camera/segmentation/mask")
    ]


def test_a_node_that_reports_and_does_not_answer(graph: Graph, tmp_path: Path) -> None:
    values = [KeyValue(key="lifecycle_state", value="active")]
    status = DiagnosticStatus(name="gone: engine", level=DiagnosticStatus.OK, values=values)
    publisher = graph.node.create_publisher(DiagnosticArray, "/diagnostics", 1)
    timer = graph.node.create_timer(0.1, lambda: publisher.publish(DiagnosticArray(status=[status])))
    report = Report(tmp_path)
    graph.node.destroy_timer(timer)
    assert "/gone does not respond" in report.why("/gone")["text"]
