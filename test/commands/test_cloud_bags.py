# SPDX-License-Identifier: Apache-2.0
"""Labelled points in bags, from clouds and from depth images, raw and compressed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import drives
import numpy as np
import pytest
from drives import (
    COMPRESSED,
    IMAGE,
    PERIOD_NS,
    START_NS,
    Recorded,
    Segment,
    bag_of,
    read_bag,
    results_of,
)

from canet_ros.bags.message_types import from_cdr, new, to_cdr
from canet_ros.formats import parse_groups
from canet_ros.messages.points import LabelledPoints, label_message
from canet_ros.messages.projection import rigid_transform
from canet_ros.messages.results import POINT_CLOUD
from canet_ros.pipeline.outputs import point_outputs
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table

INFO = "sensor_msgs/msg/CameraInfo"
POSE = "0.2,-0.5,0.1,0.5,-0.5,0.5,0.5"
GROUPS = "{flat: [road, pavement, sign_symbol]}"
RESULTS = ("points", "groups/flat/points", "groups/flat/points_outside")
COUNT = 4
LATE_NS = 60_000_000  # clouds are recorded after their images


def lidar(xyz: np.ndarray, stamp_ns: int) -> bytes:
    fields = [
        new("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=7, count=1)
        for i, n in enumerate("xyz")
    ]
    message = new(
        POINT_CLOUD, header=drives.header(stamp_ns, "lidar"), height=1, width=len(xyz), fields=fields,
        is_bigendian=False, point_step=12, row_step=12 * len(xyz), data=xyz.astype("<f4").view(np.uint8).reshape(-1),
        is_dense=True,
    )  # fmt: skip
    return to_cdr(message, POINT_CLOUD)


def packed_depth(mm: np.ndarray, stamp_ns: int, length: int | None = None) -> bytes:
    data = struct.pack("<iff", 0, 0, 0) + cv2.imencode(".png", mm)[1].tobytes()
    message = new(
        COMPRESSED, header=drives.header(stamp_ns), format="16UC1; compressedDepth png",
        data=np.frombuffer(data[:length], np.uint8),
    )  # fmt: skip
    return to_cdr(message, COMPRESSED)


def depths(index: int) -> np.ndarray:
    mm = np.random.default_rng(index).integers(500, 9000, (120, 160)).astype(np.uint16)
    mm[:20] = 0
    return mm


def points(index: int) -> np.ndarray:
    return np.random.default_rng(index).uniform((-5, -9, -6), (20, 9, 6), (3000, 3)).astype(np.float32)


LIDAR = ("/lidar/points", POINT_CLOUD, lambda index, time: lidar(points(index), time))


def recorded(*sources: tuple[str, str, Any]) -> list[Recorded]:
    """A camera and topics of (name, type, CDR by index and stamp)."""
    messages = []
    for index, frame in enumerate(drives.images(COUNT)):
        time = START_NS + index * PERIOD_NS
        messages += [
            Recorded("/front/camera_info", INFO, time, drives.camera_info(160, 120, time)),
            Recorded("/front/image_raw", IMAGE, time + 1, drives.image(frame, time)),
            *(Recorded(topic, kind, time + LATE_NS, cdr(index, time)) for topic, kind, cdr in sources),
        ]
    return sorted(messages, key=lambda message: message.log_ns)


def expected(segmenter: Segmenter, cdr: bytes, msgtype: str, index: int) -> LabelledPoints:
    frame = drives.images(COUNT)[index]
    to_camera = rigid_transform([float(t) for t in POSE.split(",")]) if msgtype == POINT_CLOUD else None
    info = from_cdr(drives.camera_info(160, 120, START_NS), INFO)
    table = color_lookup_table(segmenter.spec.classes)
    return label_message(from_cdr(cdr, msgtype), to_camera, info, frame.shape, segmenter(frame), table)


def test_clouds_are_labelled_as_by_the_node(segment: Segment, segmenter: Segmenter, tmp_path: Path) -> None:
    source = bag_of(tmp_path / "in", recorded(LIDAR))
    options = ("--cloud-topics", "/lidar/points", "--cloud-extrinsics", POSE, "--groups", GROUPS)
    assert segment(source, tmp_path / "out", *options, "--outputs", *RESULTS) == 0
    out = read_bag(tmp_path / "out")
    outputs = point_outputs(parse_groups(GROUPS))
    for index in range(COUNT):
        labelled = expected(segmenter, lidar(points(index), 0), POINT_CLOUD, index)
        for name in RESULTS:
            message = list(results_of(out, f"/front/segmentation/{name}"))[index]
            assert message.header.frame_id == "lidar"
            assert drives.stamp(to_cdr(message, POINT_CLOUD)) == START_NS + index * PERIOD_NS
            assert message.data.tobytes() == labelled.of(outputs[name](segmenter.spec.classes)).tobytes()
    assert len(labelled.of(outputs["groups/flat/points"](segmenter.spec.classes))) > 0


@pytest.mark.parametrize("compressed", [False, True])
def test_depth_images_raw_and_compressed(
    compressed: bool, segment: Segment, segmenter: Segmenter, tmp_path: Path
) -> None:
    topic, kind = ("/depth/compressedDepth", COMPRESSED) if compressed else ("/depth", IMAGE)

    def cdr(index: int, time: int) -> bytes:
        return packed_depth(depths(index), time) if compressed else drives.image(depths(index), time, "16UC1")

    source = bag_of(tmp_path / "in", recorded((topic, kind, cdr)))
    options = ("--depth-topics", topic, "--topics", "/front/image_raw")
    assert segment(source, tmp_path / "out", *options) == 0
    assert segment(source, tmp_path / "grid", *options, "--organized-points", "--mask-size", "network") == 0
    found, grid = (
        list(results_of(read_bag(tmp_path / n), "/front/segmentation/points")) for n in ("out", "grid")
    )
    assert (len(found), len(grid)) == (COUNT, COUNT)
    for index in range(COUNT):
        labelled = expected(segmenter, cdr(index, 0), kind, index)
        assert found[index].data.tobytes() == labelled.seen.tobytes()
        assert found[index].width == 100 * 160
        assert (grid[index].height, grid[index].width) == (120, 160)
        assert grid[index].data.tobytes() == labelled.organized().tobytes()


def test_damaged_and_missing_depth_images_are_counted(
    segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cdr(index: int, time: int) -> bytes:
        return packed_depth(
            depths(index), time + (PERIOD_NS // 2 if index == 2 else 0), 99 if index == 1 else None
        )

    source = bag_of(tmp_path / "in", recorded(("/depth/compressedDepth", COMPRESSED, cdr)))
    assert (
        segment(source, tmp_path / "out", "--depth-topics", "/depth/compressedDepth", "--sync-slop", 0.01)
        == 0
    )
    assert len(list(results_of(read_bag(tmp_path / "out"), "/front/segmentation/points"))) == 2
    said = capsys.readouterr().err
    assert "/depth/compressedDepth: 1 could not be used: a compressed depth image is damaged" in said
    assert (
        "no points for 1 images of /front/image_raw: nothing on /depth/compressedDepth within 0.01 s" in said
    )
