# SPDX-License-Identifier: Apache-2.0
"""RViz configurations for any cameras, made from ours by changing the topics. Needs neither rclpy nor launch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from canet_ros.launching.camera_topics import CameraTopics, transported_topic


def camera_of_display(display: dict[str, Any]) -> str | None:
    """Namespace of the camera that a display of a configuration shows, ``/front``; None for displays of other kinds."""
    if display["Class"] != "rviz_default_plugins/Image":
        return None
    topic: str = display["Topic"]["Value"]
    return topic.rpartition("/")[0].removesuffix("/segmentation")


def view_of_cameras(
    template: dict[str, Any], cameras: Sequence[CameraTopics], image_transport: str
) -> dict[str, Any]:
    """A configuration whose displays show these cameras, in their order.

    Displays of cameras that the template has beyond these are left out; cameras beyond those of the template are not
    shown.

    Args:
        template: config/canet.rviz or config/four_cameras.rviz, parsed.
        image_transport: how the camera images come: ``raw`` or ``compressed``.
    """
    view = copy.deepcopy(template)
    displays = view["Visualization Manager"]["Displays"]
    names = list(dict.fromkeys(name for name in map(camera_of_display, displays) if name is not None))
    shown = dict(zip(names, cameras))
    kept = []
    for display in displays:
        name = camera_of_display(display)
        if name is not None:
            if name not in shown:
                continue
            display["Topic"]["Value"] = _topic(display["Topic"]["Value"], shown[name], image_transport)
        kept.append(display)
    view["Visualization Manager"]["Displays"] = kept
    return view


def _topic(topic: str, camera: CameraTopics, image_transport: str) -> str:
    if "/segmentation/" in topic:
        return f"{camera.results}/{topic.rpartition('/')[2]}"
    # RViz takes the transport from the topic's last part.
    return transported_topic(camera.image, image_transport)
