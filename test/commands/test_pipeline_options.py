# SPDX-License-Identifier: Apache-2.0
"""The node's parameters in ``canet segment-bag``: the same messages, byte for byte, with all of them at once."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import cv2
import drives
import numpy as np
import pytest
from drives import (
    EXACT,
    IMAGE,
    START_NS,
    Recorded,
    Segment,
    bag_of,
    read_bag,
    results_of,
)
from waiting import wait_until

from canet_ros.cli import main
from canet_ros.simulation import StreetDrive

INFO = "sensor_msgs/msg/CameraInfo"
PERIOD_NS = 33_000_000
BLACK = np.zeros((240, 320, 3), np.uint8)
GROUPS = "{drivable: [road, pavement], people: [pedestrian, bicyclist]}"
OUTPUTS = (
    "mask", "mask/compressed", "color_mask", "overlay", "overlay/compressed", "confidence", "camera_info",
    "groups/drivable", "groups/people", "groups/people/compressed", *(["objects"] if find_spec("vision_msgs") else []),
)  # fmt: skip


def street(count: int) -> list[np.ndarray]:
    """Noisy, 320x240, so that the temporal filter has something to do."""
    noise = np.random.default_rng(1)
    still = StreetDrive(seed=5, width=320, height=240).frame(0).image.astype(np.int16)
    return [np.clip(still + noise.normal(0, 8, still.shape), 0, 255).astype(np.uint8) for _ in range(count)]


@pytest.fixture
def ignored(tmp_path: Path) -> Path:
    """The lower left corner."""
    mask = np.zeros((60, 80), np.uint8)
    mask[40:, :30] = 255
    cv2.imwrite(str(tmp_path / "ignored.png"), mask)
    return tmp_path / "ignored.png"


@pytest.mark.ros
@pytest.mark.parametrize("mask_size", ["image", "network"])
def test_node_and_bag_publish_the_same_bytes(
    mask_size: str, sharp_model: Path, ignored: Path, tmp_path: Path
) -> None:
    pytest.importorskip("rclpy")
    from builtin_interfaces.msg import Time
    from rclpy.serialization import deserialize_message
    from ros_graph import Graph, segmentation_node
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image
    from std_msgs.msg import Float32MultiArray

    recorded = []
    for index, frame in enumerate(street(6)):
        time = START_NS + index * PERIOD_NS
        recorded += [
            Recorded("/camera/camera_info", INFO, time, drives.camera_info(320, 240, time)),
            Recorded("/camera/image_raw", IMAGE, time + 1, drives.image(frame, time)),
        ]
    source, out = bag_of(tmp_path / "in", recorded), tmp_path / "out"
    options = ["--min-confidence", 0.4, "--groups", GROUPS, "--regions", "20,40,280,160", "--rotations", 90]
    options += ["--ignore-masks", ignored, "--resolution", "camera", "--steady", "--alpha", 0.7]
    options += ["--jpeg-quality", 60, "--mask-size", mask_size, "--min-object-area", 30]
    options += ["--shares-smoothing", 0.2, "--outputs", *OUTPUTS, "shares", "label_info"]
    arguments = ["segment-bag", source, out, "--model", sharp_model, *EXACT, *options]
    assert main([*map(str, arguments)]) == 0
    in_bag = read_bag(out)
    found_shares = [
        deserialize_message(m.data, Float32MultiArray)
        for m in in_bag
        if m.topic == "/camera/segmentation/shares"
    ]
    kinds = {name: CompressedImage if name.endswith("/compressed") else Image for name in OUTPUTS}
    kinds["camera_info"] = CameraInfo
    if "objects" in kinds:
        kinds["objects"] = import_module("vision_msgs.msg").Detection2DArray
    by_node: dict[str, list[object]] = {name: [] for name in OUTPUTS}
    graph = Graph()
    try:
        camera, infos = graph.camera(), graph.node.create_publisher(CameraInfo, "/camera/camera_info", 10)
        listeners = {name: graph.listen(kind, f"/camera/segmentation/{name}") for name, kind in kinds.items()}
        parameters = {
            "min_confidence": 0.4, "groups": f"'{GROUPS}'", "regions": ["20,40,280,160"], "rotations": [90],
            "ignore_masks": [str(ignored)], "resolution": "camera", "steady": True, "overlay_alpha": 0.7,
            "jpeg_quality": 60, "mask_size": mask_size, "max_age": 0.0, "min_object_area": 30, "shares_smoothing": 0.2,
        }  # fmt: skip
        with segmentation_node(sharp_model, **parameters):
            graph.wait_for_state("active")
            wait_until(infos.get_subscription_count, "the node's subscription")
            infos.publish(deserialize_message(drives.camera_info(320, 240, 0), CameraInfo))
            for listener in listeners.values():
                graph.connect(camera, listener, image=BLACK)
            shares = graph.listen(Float32MultiArray, "/camera/segmentation/shares")  # has no stamp
            wait_until(
                lambda: graph.connect(camera, listeners["mask"], image=BLACK) and shares.messages,
                "the shares",
            )
            for message in recorded:
                is_info = message.msgtype == INFO
                published = deserialize_message(message.data, CameraInfo if is_info else Image)
                (infos if is_info else camera).publish(published)
                if not is_info:
                    stamp = Time(sec=published.header.stamp.sec, nanosec=published.header.stamp.nanosec)
                    for name, listener in listeners.items():
                        by_node[name].append(listener.wait_for_stamp(stamp))
            wait_until(lambda: shares.messages[-6:] == found_shares, "the shares of the bag")
    finally:
        graph.close()
    for name in OUTPUTS:
        topic = f"/camera/segmentation/{name}"
        found = [deserialize_message(m.data, kinds[name]) for m in in_bag if m.topic == topic]
        assert len(found) == 6
        assert found == by_node[name], name
    assert all(0 < sum(message.data) < 1 for message in found_shares), "unsure pixels have no class"
    assert len({tuple(message.data) for message in found_shares}) == 6
    assert next(results_of(in_bag, "/camera/segmentation/label_info")).threshold == pytest.approx(0.4)
    masks = [m.data for m in results_of(in_bag, "/camera/segmentation/mask")]
    assert all(0 < np.count_nonzero(mask == 255) < mask.size for mask in masks)


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        (("--groups", "{a: [nothing]}"), "a names nothing, which the model does not have"),
        (("--groups", "{a: [road]}", "--outputs", "groups/b"), "choose from"),
        (("--min-confidence", "1.5"), "min_confidence: expected a number from 0 to 1, got 1.5"),
        (("--regions", "1,2,3"), "expected x,y,width,height in pixels"),
        (("--rotations", "0", "90"), "rotations has 2 entries for 1 cameras"),
        (("--ignore-masks", "absent.png"), "cannot read absent.png"),
        (("--regions", "0,0,640,480"), "is not inside an image of 320x240"),
    ],
)
def test_invalid_options_are_one_line(
    options: tuple[str, ...],
    printed: str,
    segment: Segment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (frame,) = street(1)
    recorded = [Recorded("/front/image_raw", IMAGE, START_NS, drives.image(frame, START_NS))]
    assert segment(bag_of(tmp_path / "in", recorded), tmp_path / "out", *options) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "canet segment-bag: " in line]
    assert printed in line
    assert not (tmp_path / "out").exists()
