# SPDX-License-Identifier: Apache-2.0
"""The out-of-distribution monitor through real topics: WARN with the metric, then OK again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_graph import Graph, Process, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image

from canet_ros.model.model_folder import load_spec, save_spec
from canet_ros.pipeline.ood_monitor import figures, in_distribution_range
from canet_ros.pipeline.segmenter import Segmenter

pytestmark = pytest.mark.ros
CAMERA = "/camera/image_raw"
WARN = str(DiagnosticStatus.WARN[0])


@pytest.fixture(scope="module")
def knowing_model(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the test's images."""
    folder = Path(shutil.copytree(sharp_model, tmp_path_factory.mktemp("models") / "knowing"))
    segmenter = Segmenter.load(folder, "cpu", "onnxruntime", "fp32")
    known = in_distribution_range(
        [figures(segmenter.infer([picture(160, 120, seed)])[0]) for seed in range(5)]
    )
    save_spec(folder, replace(load_spec(folder), familiar=known))
    return folder


@pytest.fixture(scope="module")
def unknown(knowing_model: Path) -> np.ndarray:
    """Of some images that a camera should not send, one that is out of what the model knows."""
    segmenter = Segmenter.load(knowing_model, "cpu", "onnxruntime", "fp32")
    for level in (0, 30, 120, 200, 255):
        blocked = np.full((120, 160, 3), level, np.uint8)
        found = figures(segmenter.infer([blocked])[0])
        low, high = segmenter.spec.familiar["mean"]
        if not low <= found["mean"] <= high:
            return blocked
    raise AssertionError("the model with random weights knows them all")


@pytest.fixture(scope="module")
def node(knowing_model: Path, graph: Graph) -> Iterator[Process]:
    with segmentation_node(knowing_model):
        graph.wait_for_state("active")
        yield


def test_a_camera_that_is_blocked_is_named_within_30_frames(
    graph: Graph, node: Process, unknown: np.ndarray
) -> None:
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    masks = graph.listen(Image, "/camera/segmentation/mask")
    camera = graph.camera(CAMERA)
    graph.connect(camera, masks)

    def send(image: np.ndarray, frames: int) -> None:
        for _ in range(frames):
            masks.wait_for_stamp(camera.send(image))

    for seed in range(30):
        send(picture(160, 120, seed % 5), 1)
    diagnostics.wait_for_new(2)
    assert 0 < float(health(diagnostics, CAMERA)["confidence_mean"]) < 1
    assert "out of distribution" not in health(diagnostics, CAMERA)["message"]
    send(unknown, 30)

    def reported() -> bool:
        return "out of distribution" in health(diagnostics, CAMERA)["message"]

    wait_until(lambda: send(unknown, 1) or reported(), "a warning")
    assert health(diagnostics, CAMERA)["level"] == WARN
    wait_until(
        lambda: send(picture(160, 120, len(masks.messages) % 5), 1) or not reported(), "the warning to go"
    )
    graph.clear()
