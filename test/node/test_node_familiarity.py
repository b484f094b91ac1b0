# SPDX-License-Identifier: Apache-2.0
"""The out-of-distribution monitor through real topics: WARN with the metric, then OK again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_graph import Graph, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image

from canet_ros.model.model_folder import load_spec, save_spec
from canet_ros.pipeline.ood_monitor import figures
from canet_ros.pipeline.segmenter import Segmenter

CAMERA = "/camera/image_raw"
WARN = str(DiagnosticStatus.WARN[0])
KNOWN, BLOCKED = picture(160, 120), np.full((120, 160, 3), 30, np.uint8)


@pytest.fixture(scope="module")
def knowing_model(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows one image."""
    folder = Path(shutil.copytree(sharp_model, tmp_path_factory.mktemp("models") / "knowing"))
    mean = figures(Segmenter.load(folder, "cpu", "onnxruntime", "fp32").infer([KNOWN])[0])["mean"]
    save_spec(folder, replace(load_spec(folder), familiar={"mean": (mean - 1e-3, mean + 1e-3)}))
    return folder


def test_a_camera_that_is_blocked_is_named_within_30_frames(graph: Graph, knowing_model: Path) -> None:
    with segmentation_node(knowing_model):
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        masks = graph.listen(Image, "/camera/segmentation/mask")
        camera = graph.camera(CAMERA)
        graph.connect(camera, masks, image=KNOWN)

        def send(image: np.ndarray, frames: int = 1) -> None:
            for _ in range(frames):
                masks.wait_for_stamp(camera.send(image))

        def reported() -> bool:
            return "out of distribution" in health(diagnostics, CAMERA)["message"]

        wait_until(lambda: send(KNOWN) or "confidence_mean" in health(diagnostics, CAMERA), "the confidence")
        assert 0 < float(health(diagnostics, CAMERA)["confidence_mean"]) < 1
        assert not reported()
        send(BLOCKED, 30)
        wait_until(lambda: send(BLOCKED) or reported(), "a warning")
        assert health(diagnostics, CAMERA)["level"] == WARN
        wait_until(lambda: send(KNOWN) or not reported(), "the warning to go")
    graph.clear()
