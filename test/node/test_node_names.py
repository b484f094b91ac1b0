# SPDX-License-Identifier: Apache-2.0
"""Names of topics: under another name, remapped absolutely and relatively; and what parameters say of themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from ros_graph import Graph, Process, picture, ros_arguments, segmentation_node
from sensor_msgs.msg import CompressedImage, Image

pytestmark = pytest.mark.ros


def remapped_node(model: Path, *rules: str, namespace: str = "", **parameters: object) -> Process:
    given = {"model": model, "engine": "onnxruntime", "device": "cpu", "precision": "fp32", **parameters}
    command = [sys.executable, "-m", "canet_ros.ros.node", *ros_arguments(given, namespace=namespace)]
    for rule in rules:
        command += ["-r", rule]
    return Process(command)


def test_results_under_a_name_of_ones_own(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model, results_name="vision/classes", groups="'{g: [road]}'"):
        graph.wait_for_state("active")
        masks = graph.listen(Image, "/camera/vision/classes/mask")
        groups = graph.listen(Image, "/camera/vision/classes/groups/g")
        camera = graph.camera()
        graph.connect(camera, masks, groups)
        refused = graph.set_parameter("results_name", "other")
        assert "deactivate and clean up canet first" in refused.reason
        for name in ("/absolute", "", "a//b", "what not", "1st"):
            refused = graph.set_parameter("results_name", name)
            assert "results_name: expected a relative name" in refused.reason
        graph.clear()


@pytest.mark.parametrize(
    ("rules", "namespace", "camera", "mask"),
    [
        # As docs/reference/topics.md: the result by its full name, and relative to the node's namespace.
        (["/camera/segmentation/mask:=/planner/road"], "", "/camera/image_raw", "/planner/road"),
        (["segmentation/mask:=road"], "/robot", "/robot/image_raw", "/robot/road"),
        # The image from elsewhere and the result named as if it had not been.
        (
            ["image_raw:=/camera/image_color", "segmentation/mask:=road"],
            "/robot",
            "/camera/image_color",
            "/robot/road",
        ),
    ],
)
def test_remapping(
    graph: Graph, random_model: Path, rules: list[str], namespace: str, camera: str, mask: str
) -> None:
    topics = {"image_topics": "[/camera/image_raw]"} if camera == "/camera/image_raw" else {}
    process = remapped_node(random_model, *rules, namespace=namespace, **topics)
    try:
        graph.wait_for_state("active", f"{namespace}/canet")
        masks = graph.listen(Image, mask)
        compressed = graph.listen(CompressedImage, f"{mask}/compressed")
        source = graph.camera(camera)
        graph.connect(source, masks, compressed)
        masks.wait_for_stamp(source.send(picture(160, 120)))
    finally:
        process.close()
        graph.clear()
