# SPDX-License-Identifier: Apache-2.0
"""The node on a robot that has no PyTorch: from an empty cache to a mask, on the engines that read ONNX."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from ros_graph import Graph, pixels_of, segmentation_node
from sensor_msgs.msg import Image
from without_torch import BLOCKED

from canet_ros.engines import cpu_has_bf16
from canet_ros.model.model_folder import available_models
from canet_ros.pipeline.segmenter import Segmenter

MODEL = "canet_lite-mobilenet_v2-camvid"
NODE = ("-c", BLOCKED + "from canet_ros.start import segmentation_node; sys.exit(segmentation_node())")


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("openvino", "bf16" if cpu_has_bf16() else "fp32"), ("openvino", "int8"), ("onnxruntime", "fp32")],
)
def test_a_mask_comes(engine: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = available_models()[MODEL]
    image = cv2.imread(str(folder / "selftest.png"))
    expected = Segmenter.load(MODEL, "cpu", "onnxruntime", "fp32")(image).mask
    monkeypatch.setenv("CANET_ROS_CACHE", str(tmp_path / "cache"))
    graph = Graph()
    try:
        masks = graph.listen(Image, "/camera/segmentation/mask")
        camera = graph.camera()
        with segmentation_node(folder, NODE, engine=engine, precision=precision) as node:
            node.wait_for_output("active")
            graph.connect(camera, masks)
            mask = pixels_of(masks.wait_for_stamp(camera.send(image)))
        assert (mask == expected).mean() > (0.9999 if precision == "fp32" else 0.98)
    finally:
        graph.close()
