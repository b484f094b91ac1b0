# SPDX-License-Identifier: Apache-2.0
"""Groups of classes from text, and the table that makes a binary mask of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from canet_ros.formats import groups_text, parse_groups
from canet_ros.model.class_table import load_class_table
from canet_ros.pipeline.outputs import membership_table, unknown_classes_problem
from canet_ros.pipeline.segmentation import Segmentation

CAMVID = load_class_table("camvid")
GROUPS = {"drivable": ("road",), "people": ("pedestrian", "bicyclist")}


@pytest.mark.parametrize(
    "text",
    [
        "{drivable: [road], people: [pedestrian, bicyclist]}",
        "drivable: road\npeople: [pedestrian, bicyclist, pedestrian]",
        json.dumps({name: list(classes) for name, classes in GROUPS.items()}),
        groups_text(GROUPS),
    ],
)
def test_the_forms_in_which_groups_can_be_written(text: str) -> None:
    assert dict(parse_groups(text)) == GROUPS


def test_no_groups_and_classes_that_look_like_something_else() -> None:
    assert dict(parse_groups("")) == dict(parse_groups("{}")) == {}
    assert dict(parse_groups("{odd: [no, 12, 'null']}")) == {"odd": ("no", "12", "null")}
    assert dict(parse_groups(groups_text({"odd": ("no", "12", "a, b")}))) == {"odd": ("no", "12", "a, b")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("road", "expected names with their classes"),
        ("{drivable: [road", "expected names with their classes"),
        ("{drivable: []}", "drivable: expected a list of class names"),
        ("{drivable: [[road]]}", "drivable: expected a list of class names"),
        ("{what drives: [road]}", "'what drives' cannot name a topic"),
        ("{compressed: [road]}", "'compressed' cannot name a topic"),
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
    assert unknown_classes_problem(GROUPS, CAMVID.names) is None
    problem = unknown_classes_problem({"drivable": ("road", "raod")}, CAMVID.names)
    assert problem is not None
    assert "drivable names raod, which" in problem
    assert ", ".join(CAMVID.names) in problem


def test_membership_table() -> None:
    table = membership_table(("road", "sky"), CAMVID)
    members = {CAMVID.names.index("road"), CAMVID.names.index("sky")}
    assert {i for i in range(256) if table[i] == 255} == members
    assert set(np.unique(table)) == {0, 255}
    assert table[255] == 0


@pytest.mark.parametrize(("share", "kept_from"), [(0.0, 0), (0.5, 128), (0.4, 102), (1.0, 255), (0.001, 1)])
def test_pixels_below_a_confidence_are_unlabelled(share: float, kept_from: int) -> None:
    confidence = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mask = np.full((16, 16), 3, np.uint8)
    result = Segmentation(mask, confidence).unlabelled_below(share)
    np.testing.assert_array_equal(result.mask, np.where(confidence >= kept_from, 3, 255))
    np.testing.assert_array_equal(result.confidence, confidence)
    assert (mask == 3).all()
