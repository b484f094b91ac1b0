# SPDX-License-Identifier: Apache-2.0
"""The node's parts that can be tried without topics."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

pytest.importorskip("rclpy")

import rclpy
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image

from canet_ros.launching.camera_topics import camera_topics
from canet_ros.model.class_table import ClassTable
from canet_ros.pipeline.camera_transform import CameraTransform, Region
from canet_ros.ros.camera import Camera, FrameIntake
from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.frame_slots import LatestSlots, PutResult, RateLimit
from canet_ros.ros.label_info import class_map
from canet_ros.ros.rclpy_compat import RCLError
from canet_ros.ros.run_node import run_node
from canet_ros.ros.statistics import Losses, StampGaps, Statistics, age_s

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(("limit_hz", "expected_hz"), [(20, 20), (5, 5), (29, 29), (40, 30), (0, 30)])
def test_rate_limit_of_a_camera_at_30_hz(limit_hz: float, expected_hz: float) -> None:
    limit = RateLimit()
    passed = sum(limit.allows(number / 30, limit_hz) for number in range(1800))
    assert passed == pytest.approx(expected_hz * 60, rel=0.02)


def test_slots_hold_the_newest_only() -> None:
    slots: LatestSlots[int] = LatestSlots()
    assert slots.put("a", 1) is PutResult.STORED
    assert slots.put("a", 2, admits=lambda: False) is PutResult.REPLACED_OLDER
    assert slots.put("b", 3, admits=lambda: False) is PutResult.REFUSED
    assert slots.put("c", 4) is PutResult.STORED
    assert slots.take_all() == {"a": 2, "c": 4}
    assert slots.put("a", 5) is PutResult.STORED


def test_stamp_gaps() -> None:
    gaps = StampGaps()
    period = 33_000_000
    stamps = [1_000_000_000 + number * period for number in range(40)]
    assert sum(gaps.missing_before(stamp) for stamp in stamps) == 0
    assert gaps.missing_before(stamps[-1] + 4 * period) == 3
    assert gaps.missing_before(stamps[-1] + 5 * period + period // 3) == 0  # jitter
    assert gaps.missing_before(stamps[0]) == 0  # a bag that starts again
    assert gaps.missing_before(stamps[0] + 10 * period) == 0  # no rate is known yet
    assert gaps.missing_before(0) == 0


def test_losses_are_the_gaps_in_each_publisher_s_numbers() -> None:
    losses = Losses()
    assert losses.add_number(b"old", 500) == 0  # what was before nobody subscribed to
    assert losses.add_number(b"old", 501) == 0
    assert losses.add_number(b"old", 505) == 3
    assert losses.add_number(b"new", 7) == 0  # the camera was started again
    assert losses.add_number(b"new", 9) == 1
    assert losses.add_number(b"old", 506) == 0
    assert (
        losses.add_number(b"", 1) + losses.add_number(b"", 900) == 898
    )  # a middleware that does not name publishers
    assert losses.add_number(b"", 2) == 0  # one that began anew


def test_a_loss_reported_twice_is_counted_once() -> None:
    statistics = Statistics()
    statistics.lose(4)  # before the first image
    statistics.number(b"camera", 5)
    statistics.number(b"camera", 11)  # of the five between, two were lost on the way and three were overtaken
    statistics.lose(2)
    assert statistics.counts() == {"lost": 9, "lost_in_transport": 6}


def test_age_is_unknown_without_a_stamp_or_after_a_jump_back() -> None:
    assert age_s(Time(sec=10), 12_500_000_000) == 2.5
    assert age_s(Time(), 12_500_000_000) is None
    assert age_s(Time(sec=20), 12_500_000_000) is None


def test_label_info_names_255_where_masks_can_hold_it() -> None:
    classes = ClassTable(("road", "sky"), ((0, 0, 0), (1, 1, 1)))
    assert class_map(classes, can_be_unlabelled=False) == [(0, "road"), (1, "sky")]
    assert class_map(classes, can_be_unlabelled=True) == [(0, "road"), (1, "sky"), (255, "unlabelled")]
    transforms = CameraTransform(rotation=90), CameraTransform(region=Region(0, 0, 16, 16))
    assert [transform.leaves_unlabelled for transform in transforms] == [False, True]


def test_a_clock_beyond_2038_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DDS would refuse the node's first message, and the node end by it."""
    monkeypatch.setattr("canet_ros.ros.initialization.time.time", lambda: 4102444800.0)
    assert run_node(lambda: pytest.fail("a node"), lambda _: True, lambda *_: None, []) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "ROS 2 stamps end in January 2038" in line


def test_a_middleware_that_does_not_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "233")

    def create() -> Any:
        raise RCLError("error creating node: error not set, at /project/src/rcl/node.c:252")

    assert run_node(create, lambda _: True, lambda *_: None, []) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not start (error creating node: error not set); ROS_DOMAIN_ID is '233'" in line


def test_images_without_numbers_are_reported_once() -> None:
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("canet_test", context=context)
    try:
        faults = FaultLog(node.get_logger())
        topics = camera_topics(["/front/image_raw"], "segmentation")[0]
        camera = Camera(node, topics, topics.results, "raw", FrameIntake(lambda: 0, lambda: 0.0), faults)
        with mock.patch.object(faults, "advise") as advise:
            for _ in range(2):  # as rclpy gives it on Cyclone DDS
                camera._on_numbered_message(Image(), {"publication_sequence_number": None})
        assert [call.args[1] for call in advise.call_args_list] == [Fault.LOSSES_UNKNOWN]
        assert not camera.snapshot().losses_counted
        assert camera.statistics.counts()["received"] == 2
    finally:
        node.destroy_node()
        context.try_shutdown()
