# SPDX-License-Identifier: Apache-2.0
"""RViz configurations for given cameras, made from templates. Needs neither rclpy nor launch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from canet_ros.launching.camera_topics import CameraTopics, transported_topic


def view_of_cameras(
    template: dict[str, Any], cameras: Sequence[CameraTopics], image_transport: str
) -> dict[str, Any]:
    """Configuration whose image displays show these cameras, in order.

    Surplus displays of the template are removed; surplus cameras are not shown.

    Args:
        template: config/canet.rviz or config/four_cameras.rviz, parsed.
        image_transport: of the camera images, one of ``names.TRANSPORTS``.
    """
    view = copy.deepcopy(template)
    displays = view["Visualization Manager"]["Displays"]
    names = dict.fromkeys(_camera_name(display) for display in displays if _is_image(display))
    camera_of = dict(zip(names, cameras))
    remaining = [
        display for display in displays if not _is_image(display) or _camera_name(display) in camera_of
    ]
    for display in filter(_is_image, remaining):
        topic, camera = display["Topic"]["Value"], camera_of[_camera_name(display)]
        if "/segmentation/" in topic:
            topic = f"{camera.results}/{topic.rpartition('/')[2]}"
        else:  # RViz derives the transport from the last part of the topic.
            topic = transported_topic(camera.image, image_transport)
        display["Topic"]["Value"] = topic
    view["Visualization Manager"]["Displays"] = remaining
    return view


def _is_image(display: dict[str, Any]) -> bool:
    return bool(display["Class"] == "rviz_default_plugins/Image")


def _camera_name(display: dict[str, Any]) -> str:
    topic: str = display["Topic"]["Value"]
    return topic.rpartition("/")[0].removesuffix("/segmentation")
