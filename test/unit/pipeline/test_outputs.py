# SPDX-License-Identifier: Apache-2.0
"""Results of a mask: groups of classes from text, class shares, and objects as connected components."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from canet_ros.bags.message_types import from_cdr, header, new, to_cdr
from canet_ros.formats import groups_text, parse_groups
from canet_ros.messages.results import MESSAGE_OUTPUTS
from canet_ros.model.class_table import load_class_table
from canet_ros.pipeline.camera_transform import CameraTransform, Region
from canet_ros.pipeline.class_shares import ShareFilter, class_shares
from canet_ros.pipeline.objects import components
from canet_ros.pipeline.outputs import (
    OBJECTS,
    SHARES,
    ProcessOptions,
    RenderInput,
    unknown_classes_problem,
)
from canet_ros.pipeline.process import Frame, postprocess
from canet_ros.pipeline.segmentation import Segmentation

CLASSES = load_class_table("camvid")
CAR, ROAD, SKY, PEDESTRIAN = (CLASSES.names.index(n) for n in ("car", "road", "sky", "pedestrian"))
OPTIONS = ProcessOptions(
    CLASSES,
    groups=parse_groups("{cars: [car], people: [pedestrian]}"),
    min_object_area=20,
)


def drawn(
    mask: np.ndarray,
    confidence: np.ndarray | int = 255,
    view: CameraTransform | None = None,
    options: ProcessOptions = OPTIONS,
) -> RenderInput:
    """Of a camera with 160x120 pixels."""
    image = np.zeros((120, 160, 3), np.uint8)
    found = Segmentation(mask, np.broadcast_to(np.uint8(confidence), mask.shape).copy())
    return postprocess(Frame(image, 0, view or CameraTransform()), found, options)


def test_shares_are_those_of_the_mask_where_it_is_sure() -> None:
    mask = np.full((60, 80), ROAD, np.uint8)
    mask[:15], mask[15:18] = SKY, 255
    shares = drawn(mask).shares()
    assert shares.dtype == np.float32
    expected = {SKY: 15 / 60, ROAD: 42 / 60}
    np.testing.assert_allclose(shares, [expected.get(i, 0) for i in range(len(CLASSES))])
    confidence = np.full((60, 80), 200, np.uint8)
    confidence[30:] = 50
    sure = drawn(mask, confidence, options=replace(OPTIONS, min_confidence=0.5)).shares()
    assert (sure[SKY], sure[ROAD], sure.sum()) == pytest.approx((0.25, 0.2, 0.45))


def test_only_the_region_counts_without_what_is_ignored() -> None:
    """The network sees the lower half of a camera, turned by 90 degrees; the camera's left half is ignored."""
    upright = np.full((60, 160), ROAD, np.uint8)  # of the region, as the camera sees it
    upright[:, :80], upright[:15, 80:] = CAR, SKY
    ignored = np.zeros((12, 16), np.uint8)
    ignored[:, :8] = 255
    view = CameraTransform(90, Region(0, 60, 160, 60), ignored)
    shares = drawn(np.rot90(upright, -1).copy(), view=view).shares()
    np.testing.assert_allclose(shares[[CAR, SKY, ROAD]], [0, 0.25, 0.75], atol=0.01)
    assert class_shares(upright, np.zeros((60, 160), np.bool_), 11).sum() == 0


def test_shares_follow_a_change_with_the_time_constant() -> None:
    smooth, before, after = ShareFilter(0.5), np.float32([1, 0]), np.float32([0, 1])
    second = 1_000_000_000
    assert (smooth(before, 100 * second) == before).all()
    for number in range(1, 11):
        found = smooth(after, 100 * second + number * second // 20)
        np.testing.assert_allclose(found[0], math.exp(-number / 10), rtol=1e-5)
    assert (smooth(before, 110 * second) == before).all(), "after a gap"
    assert (smooth(after, 90 * second) == after).all(), "a bag restarted"
    assert (smooth(before, 90 * second) == before).all(), "no stamps"
    smooth.time_constant_s = 0.0
    assert (smooth(after, 91 * second) == after).all()


def scene() -> tuple[np.ndarray, np.ndarray]:
    mask, confidence = np.full((120, 160), ROAD, np.uint8), np.full((120, 160), 255, np.uint8)
    mask[10:20, 30:50], confidence[10:20, 30:50] = CAR, 102
    mask[60:100, 100:140], mask[70:90, 110:130] = CAR, PEDESTRIAN  # a ring around a pedestrian
    mask[5, 5:24] = CAR  # 19 pixels
    mask[20:40, 49:60] = CAR  # touches the first car
    mask[110:115, 10:14], mask[115:119, 14:18] = PEDESTRIAN, PEDESTRIAN  # touch at a corner
    return mask, confidence


def test_objects_are_connected_components_so_touching_cars_are_one() -> None:
    found = components(drawn(*scene()))
    assert [(c.group, c.x, c.y, c.width, c.height, c.area) for c in found] == [
        ("cars", 100, 60, 40, 40, 1200),
        ("cars", 30, 10, 30, 30, 420),
        ("people", 110, 70, 20, 20, 400),
        ("people", 10, 110, 8, 9, 36),
    ]
    assert [c.confidence for c in found] == pytest.approx([1, (200 * 0.4 + 220) / 420, 1, 1])
    assert found[2].centre == (119.5, 79.5)
    assert len(components(drawn(*scene(), options=replace(OPTIONS, min_object_area=1)))) == 5
    assert components(drawn(*scene(), options=replace(OPTIONS, groups={}))) == []
    assert components(drawn(np.full((120, 160), 255, np.uint8))) == []


def sent(name: str, mask: np.ndarray, confidence: np.ndarray | int = 255) -> Any:
    """The message of an output, as it arrives."""
    msgtype, build = MESSAGE_OUTPUTS[name]
    message = build(new, header(5 * 10**9, "camera"), drawn(mask, confidence))
    return from_cdr(to_cdr(message, msgtype), msgtype)


def test_shares_with_their_names() -> None:
    message = sent(SHARES, np.full((60, 80), CAR, np.uint8))
    assert tuple(dimension.label for dimension in message.layout.dim) == CLASSES.names
    assert message.data.tolist() == [float(i == CAR) for i in range(len(CLASSES))]


def test_objects_as_detections() -> None:
    message = sent(OBJECTS, *scene())
    detection = message.detections[2]
    assert (message.header.frame_id, detection.header.stamp.sec) == ("camera", 5)
    center = detection.bbox.center
    assert (center.position.x, center.position.y, center.theta) == (119.5, 79.5, 0)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (20, 20)
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("people", 1)
    position = result.pose.pose.position
    assert (position.x, position.y, position.z) == (119.5, 79.5, 400)


GROUPS = {"drivable": ("road",), "people": ("pedestrian", "bicyclist")}


def test_the_forms_in_which_groups_can_be_written() -> None:
    for text in (
        "drivable: road\npeople: [pedestrian, bicyclist, pedestrian]",
        json.dumps({name: list(classes) for name, classes in GROUPS.items()}),
        groups_text(GROUPS),
    ):
        assert dict(parse_groups(text)) == GROUPS
    assert dict(parse_groups("")) == dict(parse_groups("{}")) == {}
    assert dict(parse_groups("{odd: [no, 12, 'null']}")) == {"odd": ("no", "12", "null")}
    assert dict(parse_groups(groups_text({"odd": ("no", "12", "a, b")}))) == {"odd": ("no", "12", "a, b")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{drivable: [road", "expected names with their classes"),
        ("{drivable: []}", "drivable: expected a list of class names"),
        ("{what drives: [road]}", "'what drives' cannot name a topic"),
        # What a stranger may send to the parameter service.
        ("[" * 9000, "expected names with their classes"),
        ("{drivable: [" + "road, " * 5000 + "road]}", "at most 10000 characters"),
        ("{" + ", ".join(f"g{i}: road" for i in range(65)) + "}", "at most 64"),
    ],
)
def test_anything_else_is_refused_with_a_reason(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_groups(text)


def test_unknown_classes_are_named_with_those_that_exist() -> None:
    assert unknown_classes_problem(GROUPS, CLASSES.names) is None
    problem = unknown_classes_problem({"drivable": ("road", "raod")}, CLASSES.names)
    assert problem is not None
    assert "drivable names raod, which" in problem
    assert ", ".join(CLASSES.names) in problem


@pytest.mark.parametrize(("share", "kept_from"), [(0.0, 0), (0.5, 128), (0.4, 102), (1.0, 255), (0.001, 1)])
def test_pixels_below_a_confidence_are_unlabelled(share: float, kept_from: int) -> None:
    confidence = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mask = np.full((16, 16), 3, np.uint8)
    result = Segmentation(mask, confidence).unlabelled_below(share)
    np.testing.assert_array_equal(result.mask, np.where(confidence >= kept_from, 3, 255))
    np.testing.assert_array_equal(result.confidence, confidence)
    assert (mask == 3).all()
