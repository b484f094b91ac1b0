# SPDX-License-Identifier: Apache-2.0
"""If an engine fails the self-test, the node publishes nothing and is inactive, with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Graph, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image

from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.self_test import IMAGE_FILE, MASK_FILE


def with_test_picture(model: Path, folder: Path, right: bool) -> Path:
    shutil.copytree(model, folder)
    image = picture(160, 120, seed=3)
    shown = image if right else np.ascontiguousarray(image[:, ::-1, ::-1])  # turned, red and blue exchanged
    mask = Segmenter.load(model, "cpu", "onnxruntime", "fp32")(shown).mask
    cv2.imwrite(str(folder / IMAGE_FILE), image)
    cv2.imwrite(str(folder / MASK_FILE), mask)
    return folder


@pytest.mark.parametrize(("resolution", "right"), [("", False), ("camera", False), ("camera", True)])
def test_masks_come_of_a_right_engine_alone(
    graph: Graph, random_model: Path, tmp_path: Path, resolution: str, right: bool
) -> None:
    model = with_test_picture(random_model, tmp_path / "model", right)
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    masks = graph.listen(Image, "/camera/segmentation/mask")
    camera = graph.camera()
    with segmentation_node(model, resolution=resolution or "160x120"):

        def tested() -> bool:
            camera.send(np.zeros((24, 32, 3), np.uint8))
            engine = health(diagnostics, "engine")
            words = engine.get("self_test", "") if right else engine.get("message", "")
            return ("% of the pixels" if right else "self-test failed") in words

        wait_until(tested, "the outcome of the self-test")
        if right:
            graph.connect(camera, masks)
        else:
            assert health(diagnostics, "engine")["level"] == "2"
            graph.wait_for_state("inactive")
            assert not masks.messages
    graph.clear()
