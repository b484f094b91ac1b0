# SPDX-License-Identifier: Apache-2.0
"""Camera transforms through real topics: aspect ratio, region, rotation, ignored pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_graph import Graph, Process, health, picture, pixels_of, segmentation_node, wait_until
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from canet_ros.pipeline.camera_shape import camera_resolution
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.ros.image_conversion import image_message

pytestmark = pytest.mark.ros
FRONT, REAR = "/front/image_raw", "/rear/image_raw"
EXACT = {"device": "cpu", "engine": "onnxruntime", "precision": "fp32"}


@pytest.fixture(scope="module")
def process(random_model: Path, graph: Graph) -> Iterator[Process]:
    with segmentation_node(random_model, image_topics=f"['{FRONT}', '{REAR}']", autostart=False) as process:
        graph.wait_for_state("unconfigured")
        assert graph.change_state("configure")
        yield process


@pytest.fixture
def node(graph: Graph, process: Process) -> Iterator[Process]:
    yield process
    graph.clear()
    graph.change_state("deactivate")
    plain = {"resolution": "", "regions": [""], "rotations": [0], "ignore_masks": [""], "mask_size": "image"}
    for name, value in plain.items():
        assert graph.set_parameter(name, value).successful


def activate(graph: Graph, **parameters: object) -> None:
    for name, value in parameters.items():
        result = graph.set_parameter(name, value)
        assert result.successful, result.reason
    assert graph.change_state("activate")
    graph.wait_for_state("active")


def test_the_first_image_decides_the_resolution_and_other_shapes_are_refused(
    graph: Graph, node: Process, random_model: Path
) -> None:
    activate(graph, resolution="camera", mask_size="network")
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
        lambda: rear.send(picture(200, 200)) and "has not the shape" in health(diagnostics, REAR)["message"],
        "a refusal in the diagnostics",
    )
    assert health(diagnostics, REAR)["level"] == str(DiagnosticStatus.WARN[0])
    assert "an image of 200x200 has not the shape" in node.output()
    masks["front"].wait_for_stamp(front.send(image))


def test_another_aspect_ratio_is_a_warning_with_a_fitting_resolution(graph: Graph, node: Process) -> None:
    activate(graph)
    camera, masks = graph.camera(FRONT), graph.listen(Image, "/front/segmentation/mask")
    graph.connect(camera, masks)
    before = len(node.output())
    for _ in range(3):
        masks.wait_for_stamp(camera.send(picture(640, 360)))
    width, height = camera_resolution((160, 120), (640, 360))
    lines = [line for line in node.output()[before:].splitlines() if "squeezed" in line]
    assert len(lines) == 1
    assert "WARN" in lines[0]
    assert f"{FRONT}: images of 640x360 are squeezed into 160x120" in lines[0]
    assert f"resolution {width}x{height}, or 'camera'" in lines[0]


@pytest.mark.parametrize("mask_size", ["image", "network"])
def test_region_rotation_and_ignored_pixels(
    graph: Graph, node: Process, segmenter: Segmenter, tmp_path: Path, mask_size: str
) -> None:
    """Of a camera that hangs upside-down, the part below the sky and without the bonnet."""
    bonnet = np.zeros((240, 320), np.uint8)
    bonnet[:40, 100:200] = 255
    cv2.imwrite(str(tmp_path / "bonnet.png"), bonnet)
    activate(
        graph,
        regions=["0,0,320,160", ""],
        rotations=[180, 0],
        ignore_masks=[str(tmp_path / "bonnet.png"), ""],
        mask_size=mask_size,
    )
    listeners = {
        name: graph.listen(Image, f"/front/segmentation/{name}") for name in ("mask", "confidence", "overlay")
    }
    infos = graph.listen(CameraInfo, "/front/segmentation/camera_info")
    rear_masks = graph.listen(Image, "/rear/segmentation/mask")
    front, rear = graph.camera(FRONT), graph.camera(REAR)
    driver = graph.camera("/front/camera_info", CameraInfo)
    image = picture(320, 240)
    wait_until(
        lambda: front.send(image) and all(listener.messages for listener in listeners.values()), "results"
    )
    graph.connect(rear, rear_masks)
    driver.wait_for_subscriber()
    header = Header(stamp=graph.node.get_clock().now().to_msg(), frame_id="front")

    def info_came() -> bool:
        driver.publish(CameraInfo(header=header, width=320, height=240, k=[9.0] * 9))
        front.publish(image_message(image, "bgr8", header))
        return any(info.header == header for info in infos.messages)

    wait_until(info_came, "camera_info")
    size = (320, 240) if mask_size == "image" else (160, 180)  # 160x120 pixels of the 160 rows, of 240
    info = infos.wait_for_stamp(header.stamp)
    assert (info.width, info.height) == size
    found = segmenter.infer([np.ascontiguousarray(image[:160][::-1, ::-1])])[0]
    upright = cv2.resize(
        found.mask[::-1, ::-1], (size[0], size[1] * 2 // 3), interpolation=cv2.INTER_NEAREST_EXACT
    )
    expected = np.full(size[::-1], 255, np.uint8)
    expected[: size[1] * 2 // 3] = upright
    ignored = cv2.resize(bonnet, size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    expected[ignored] = 255
    mask = pixels_of(listeners["mask"].wait_for_stamp(header.stamp))
    np.testing.assert_array_equal(mask, expected)
    confidence = pixels_of(listeners["confidence"].wait_for_stamp(header.stamp))
    assert not confidence[expected == 255].any()
    assert confidence[expected != 255].all()
    # The other camera is as it was.
    other = pixels_of(rear_masks.wait_for_stamp(rear.send(image)))
    whole = segmenter.infer([image])[0]
    np.testing.assert_array_equal(
        other, whole.resized((320, 240) if mask_size == "image" else (160, 120)).mask
    )


def test_a_region_outside_the_image_is_reported(graph: Graph, node: Process) -> None:
    activate(graph, regions=["0,0,640,480"])
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    graph.listen(Image, "/front/segmentation/mask")
    camera = graph.camera(FRONT)
    camera.wait_for_subscriber()
    wait_until(
        lambda: (
            camera.send(picture(320, 240))
            and "does not lie in an image of 320x240" in health(diagnostics, FRONT).get("message", "")
        ),
        "the diagnostics to say so",
    )


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("rotations", [45], "expected 0, 90, 180 or 270"),
        ("rotations", ["90"], "expected a list of whole numbers"),
        ("regions", ["1,2,3"], "expected x,y,width,height"),
        ("regions", ["0,0,8,8"], "16x16 or more"),
        ("ignore_masks", [3], "expected a list"),
    ],
)
def test_refused_values(graph: Graph, process: Process, name: str, value: object, reason: str) -> None:
    result = graph.set_parameter(name, value)
    assert not result.successful
    assert reason in result.reason


def test_an_unreadable_mask_fails_the_activation(graph: Graph, node: Process) -> None:
    before = len(node.output())
    assert graph.set_parameter("ignore_masks", ["/no/such.png"]).successful
    graph.change_state("activate")
    wait_until(lambda: "cannot read /no/such.png" in node.output()[before:], "the reason in the log")
    wait_until(lambda: graph.state() == "inactive", "the node to stay inactive")
