# SPDX-License-Identifier: Apache-2.0
"""Names of topics: under another name, remapped absolutely and relatively; and what parameters say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from ros_graph import Graph, segmentation_node
from sensor_msgs.msg import CompressedImage, Image


def test_results_under_a_name_of_ones_own(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model, results_name="vision/classes", groups="'{g: [road]}'"):
        graph.wait_for_state("active")
        masks = graph.listen(Image, "/camera/vision/classes/mask")
        groups = graph.listen(Image, "/camera/vision/classes/groups/g")
        camera = graph.camera()
        graph.connect(camera, masks, groups)
        refused = graph.set_parameter("results_name", "other")
        assert "deactivate and clean up canet first" in refused.reason
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
    topics = {"image_topics": "['image_raw']"} if namespace else {}
    program = ("-m", "canet_ros.ros.node", "--ros-args", *(word for rule in rules for word in ("-r", rule)))
    with segmentation_node(random_model, program, namespace=namespace, **topics):
        graph.wait_for_state("active", f"{namespace}/canet")
        masks = graph.listen(Image, mask)
        compressed = graph.listen(CompressedImage, f"{mask}/compressed")
        graph.connect(graph.camera(camera), masks, compressed)
    graph.clear()
