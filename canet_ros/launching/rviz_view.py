# SPDX-License-Identifier: Apache-2.0
"""RViz configurations for given cameras, from our templates. Imports neither rclpy nor launch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from canet_ros.launching.camera_topics import CameraTopics, transported_topic


def camera_of_display(display: dict[str, Any]) -> str | None:
    """Namespace of the camera that an image display shows, ``/front``; None for other displays."""
    if display["Class"] != "rviz_default_plugins/Image":
        return None
    topic: str = display["Topic"]["Value"]
    return topic.rpartition("/")[0].removesuffix("/segmentation")


def view_of_cameras(
    template: dict[str, Any], cameras: Sequence[CameraTopics], image_transport: str
) -> dict[str, Any]:
    """Configuration whose displays show these cameras, in order.

    Surplus displays of the template are removed; surplus cameras are not shown.

    Args:
        template: config/canet.rviz or config/four_cameras.rviz, parsed.
        image_transport: of the camera images, ``raw`` or ``compressed``.
    """
    view = copy.deepcopy(template)
    displays = view["Visualization Manager"]["Displays"]
    names = list(dict.fromkeys(name for name in map(camera_of_display, displays) if name is not None))
    shown = dict(zip(names, cameras))
    remaining = []
    for display in displays:
        name = camera_of_display(display)
        if name is not None:
            if name not in shown:
                continue
            display["Topic"]["Value"] = _topic(display["Topic"]["Value"], shown[name], image_transport)
        remaining.append(display)
    view["Visualization Manager"]["Displays"] = remaining
    return view


def _topic(topic: str, camera: CameraTopics, image_transport: str) -> str:
    if "/segmentation/" in topic:
        return f"{camera.results}/{topic.rpartition('/')[2]}"
    # RViz derives the transport from the last part of the topic.
    return transported_topic(camera.image, image_transport)
