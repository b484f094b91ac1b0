# SPDX-License-Identifier: Apache-2.0
"""The aspect ratio of cameras and of the network through real topics.

Regions, rotations and ignored pixels: test/commands/test_pipeline_options.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_graph import Graph, Process, health, picture, pixels_of, segmentation_node, wait_until
from sensor_msgs.msg import Image

from canet_ros.pipeline.camera_shape import camera_resolution
from canet_ros.pipeline.segmenter import Segmenter

FRONT, REAR = "/front/image_raw", "/rear/image_raw"
EXACT = {"device": "cpu", "engine": "onnxruntime", "precision": "fp32"}


@pytest.fixture
def node(random_model: Path, graph: Graph) -> Iterator[Process]:
    parameters = {"image_topics": f"['{FRONT}', '{REAR}']", "resolution": "camera", "mask_size": "network"}
    with segmentation_node(random_model, **parameters) as process:
        graph.wait_for_state("active")
        yield process
    graph.clear()


def test_the_first_image_decides_the_resolution_and_other_shapes_are_refused(
    graph: Graph, node: Process, random_model: Path
) -> None:
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    wait_until(
        lambda: health(diagnostics, "engine").get("resolution") == "that of the first image", "the state"
    )
    front, rear = graph.camera(FRONT), graph.camera(REAR)
    masks = {name: graph.listen(Image, f"/{name}/segmentation/mask") for name in ("front", "rear")}
    image = picture(640, 360)
    front.wait_for_subscriber()
    received = wait_until(lambda: front.send(image) and masks["front"].messages, "a mask")
    width, height = camera_resolution((160, 120), (640, 360))
    assert (received[0].width, received[0].height) == (width, height)
    expected = Segmenter.load(random_model, resolution=(width, height), **EXACT).infer([image])[0]
    np.testing.assert_array_equal(pixels_of(masks["front"].wait_for_stamp(front.send(image))), expected.mask)
    wait_until(
        lambda: health(diagnostics, "engine")["resolution"] == f"{width}x{height} for the camera", "the state"
    )
    # The same shape at another size goes; another shape is refused with a reason, and the first camera works on.
    rear.wait_for_subscriber()
    wait_until(lambda: rear.send(picture(320, 180)) and masks["rear"].messages, "a mask of the other camera")
    wait_until(
        lambda: (
            rear.send(picture(200, 200))
            and "not have the aspect ratio" in health(diagnostics, REAR)["message"]
        ),
        "a refusal in the diagnostics",
    )
    assert health(diagnostics, REAR)["level"] == str(DiagnosticStatus.WARN[0])
    assert "an image of 200x200 does not have the aspect ratio" in node.output()
    masks["front"].wait_for_stamp(front.send(image))
