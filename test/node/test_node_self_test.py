# SPDX-License-Identifier: Apache-2.0
"""If an engine fails the self-test, the node publishes nothing and is inactive, with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Graph, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image

from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.self_test import IMAGE_FILE, MASK_FILE

pytestmark = pytest.mark.ros


def with_test_picture(model: Path, folder: Path, right: bool) -> Path:
    shutil.copytree(model, folder)
    image = picture(160, 120, seed=3)
    shown = image if right else np.ascontiguousarray(image[:, ::-1, ::-1])  # turned, red and blue exchanged
    mask = Segmenter.load(model, "cpu", "onnxruntime", "fp32")(shown).mask
    cv2.imwrite(str(folder / IMAGE_FILE), image)
    cv2.imwrite(str(folder / MASK_FILE), mask)
    return folder


@pytest.mark.parametrize("resolution", ["", "camera"])
@pytest.mark.parametrize("right", [True, False])
def test_masks_come_of_a_right_engine_alone(
    graph: Graph, random_model: Path, tmp_path: Path, resolution: str, right: bool
) -> None:
    model = with_test_picture(random_model, tmp_path / "model", right)
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    masks = graph.listen(Image, "/camera/segmentation/mask")
    camera = graph.camera()
    parameters = {"resolution": resolution} if resolution else {}
    try:
        with segmentation_node(model, **parameters) as process:
            if right:
                graph.wait_for_state("active")
                graph.connect(camera, masks)
                wait_until(
                    lambda: "% of the pixels" in health(diagnostics, "engine").get("self_test", ""),
                    "the self-test in diagnostics",
                )
                return

            def gave_up() -> bool:
                camera.send(np.zeros((24, 32, 3), np.uint8))
                return "deactivating the node" in process.output()

            wait_until(gave_up, "the node to give up")
            wait_until(
                lambda: health(diagnostics, "engine").get("lifecycle_state") == "inactive", "the state"
            )
            assert "self-test failed" in health(diagnostics, "engine")["message"]
            assert health(diagnostics, "engine")["level"] == "2"
            assert graph.state() == "inactive"
            assert not masks.messages
    finally:
        graph.clear()
