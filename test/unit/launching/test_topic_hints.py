# SPDX-License-Identifier: Apache-2.0
"""Hints about image topics lead to images: the tests follow each hint."""

from __future__ import annotations

import itertools
import re

import pytest

from canet_ros.launching.topic_hints import (
    COMPRESSED,
    IMAGE,
    NO_IMAGES,
    CameraChoice,
    topic_hint,
)

RAW, JPEG, ODD = "/cam/image_raw", "/cam/image_raw/compressed", "/cam/image_jpeg"


def followed(present: CameraChoice, hint: str) -> CameraChoice:
    """The choice of a user who follows a hint."""
    image = re.search(r"image_topics to (\S+?)(,| |$)", hint)
    transport = re.search(r"image_transport (?:to )?(\w+)", hint)
    remapping = re.search(r"-r (\S+):=([^\s)]+)", hint)
    return CameraChoice(
        image[1] if image else present.image,
        transport[1] if transport else present.transport,
        remapping[2] if remapping else "",
    )


@pytest.mark.parametrize("transport", ["raw", "compressed"])
@pytest.mark.parametrize("written", [RAW, JPEG, ODD, "/cam/image_rwa", "/cam/x/compressed"])
@pytest.mark.parametrize(
    "there", [topics for n in (1, 3) for topics in itertools.combinations((RAW, JPEG, ODD), n)]
)
def test_following_a_hint_brings_images(written: str, transport: str, there: tuple[str, ...]) -> None:
    existing = {topic: [IMAGE if topic == RAW else COMPRESSED] for topic in there}
    present = CameraChoice(written, transport)
    if present.works(existing):
        return
    hint = topic_hint(present, [], existing, own=())
    listed = re.search(r"existing image topics: ([^ ,]+)( \(.*?\))?", hint)
    choice = (
        followed(CameraChoice(listed[1], transport), listed[2] or "") if listed else followed(present, hint)
    )
    assert choice != present
    assert choice.works(existing), hint


def test_topics_of_the_node_itself_are_never_suggested() -> None:
    own = {"/cam/vision/mask": [IMAGE], "/planner/road": [IMAGE], "/scan": ["sensor_msgs/msg/LaserScan"]}
    assert topic_hint(CameraChoice(RAW, "raw"), [], own, own) == NO_IMAGES


def test_results_of_another_node_are_not_suggested() -> None:
    results = [*("mask", "color_mask", "overlay", "confidence"), "groups/people"]
    existing = {f"/rear/vision/{name}": [IMAGE] for name in results}
    existing["/segmentation/image_raw"] = [IMAGE]
    hint = topic_hint(CameraChoice("/rear/vision/maks", "raw"), [], existing, ())
    assert hint == "; existing image topics: /segmentation/image_raw"


def test_a_hint_does_not_take_the_images_of_another_camera() -> None:
    existing = {RAW: [IMAGE], "/rear/image_raw/compressed": [COMPRESSED]}
    present = CameraChoice("/rear/image_raw", "raw")
    assert "image_transport" in topic_hint(present, [], existing, ())
    assert "image_transport" not in topic_hint(present, [RAW], existing, ())


def test_a_topic_whose_results_would_collide_is_not_suggested() -> None:
    existing = {RAW: [IMAGE], "/cam/depth": [IMAGE]}
    assert "/cam/depth" in topic_hint(CameraChoice("/rear/depth", "raw"), [], existing, ())
    assert topic_hint(CameraChoice("/rear/depth", "raw"), [RAW], existing, ()) == ""
