# SPDX-License-Identifier: Apache-2.0
"""Logs when a camera's images stop, why, and when they resume."""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rclpy.node import Node

from canet_ros.image_transports import transport_content
from canet_ros.launching.network import interface_addresses, late_interfaces
from canet_ros.launching.topic_hints import MESSAGE_TYPES, CameraChoice, topic_hint

if TYPE_CHECKING:
    from canet_ros.ros.camera import Camera


class TopicState(enum.Enum):
    """State of a camera's image topic."""

    AS_EXPECTED = enum.auto()  # images arrive, or would if the node subscribed
    SILENT = enum.auto()  # has a publisher, but no image arrives
    NO_PUBLISHER = enum.auto()
    WRONG_TYPE = enum.auto()


class CameraWatch:
    """Checks the ROS graph for one camera and logs each change.

    Attributes:
        topic_problem: why no images arrive, as text; empty: they arrive, or would if the node subscribed.
        rivals: other publishers of our results or of the camera's images, as text; empty: none.
    """

    def __init__(self, node: Node, camera: Camera, transport: str) -> None:
        self._node = node
        self._interfaces = interface_addresses()
        self._camera = camera
        self._choice = CameraChoice(camera.name, transport)
        self._type = MESSAGE_TYPES[transport]
        self.rivals = ""
        self.reset()

    def reset(self) -> None:
        """Start afresh when the node is activated."""
        self.topic_problem = ""
        # State of the topic and hint to the intended one; a change of either is worth another line in the log.
        self._found = self._logged = (TopicState.AS_EXPECTED, "")
        self._found_s = time.monotonic()

    def check(self, stale_after_s: float) -> None:
        """Check now; a problem is logged once it has lasted for ``stale_after_s``."""
        topic, now_s = self._camera.image_topic, time.monotonic()
        publishers = self._node.get_publishers_info_by_topic(topic)
        state, text, hint = self._find(publishers, stale_after_s)
        if (state, hint) != self._found:
            self._found, self._found_s = (state, hint), now_s
        self.topic_problem = text + hint
        at_once = state in (TopicState.AS_EXPECTED, TopicState.SILENT)
        if self._found != self._logged and (at_once or now_s - self._found_s >= stale_after_s):
            self._node.get_logger().warning(f"{topic}: {self.topic_problem or self._recovery()}")
            self._logged = self._found
        rivals = self._find_rivals(publishers)
        if rivals and rivals != self.rivals:
            self._node.get_logger().warning(f"{self._camera.name}: {rivals}")
        self.rivals = rivals

    def _recovery(self) -> str:
        if self._logged[0] is TopicState.SILENT:
            return "images resumed"
        return "publisher is back" + ("" if self._camera.subscribed_since_s is None else "; images resumed")

    def _find(self, publishers: Sequence[Any], stale_after_s: float) -> tuple[TopicState, str, str]:
        """State of the topic, its description, and the hint."""
        topic, silent_s = self._camera.image_topic, self._camera.silent_s() or 0.0
        silent = silent_s > stale_after_s
        if not publishers:
            text = f"no publisher of {topic}" + (
                f"; no image received for {silent_s:.1f} s" if silent else ""
            )
            return TopicState.NO_PUBLISHER, text, self._hint() + late_interfaces(self._interfaces)
        if not any(publisher.topic_type == self._type for publisher in publishers):
            content = transport_content(publishers[0].topic_type, topic)
            if content:
                text = f"{topic} carries {content}: convert it with image_transport's republish node"
                return TopicState.WRONG_TYPE, text, ""
            types = ", ".join(sorted({publisher.topic_type for publisher in publishers}))
            return TopicState.WRONG_TYPE, f"{topic} carries {types}, not {self._type}", self._hint()
        if silent:
            text = f"no image received on {topic} for {silent_s:.1f} s, although it has a publisher"
            return TopicState.SILENT, self._camera.qos_problem or text, ""
        return TopicState.AS_EXPECTED, "", ""

    def _hint(self) -> str:
        node = self._node
        images = [node.resolve_topic_name(name) for name in node.get_parameter("image_topics").value]
        return topic_hint(
            self._choice,
            others=[image for image in images if image != self._camera.name],
            existing=dict(node.get_topic_names_and_types()),
            own={publisher.topic_name for publisher in node.publishers},
        )

    def _find_rivals(self, images: Sequence[Any]) -> str:
        own = self._node.get_fully_qualified_name()
        nodes = [
            _full_name(info)
            for info in self._node.get_publishers_info_by_topic(self._camera.outputs.mask_topic)
        ]
        others = {name for name in nodes if name != own}
        # A second node of the same name and namespace, started by mistake.
        if nodes.count(own) > 1:
            others.add(f"another {own}")
        if others:
            return f"{', '.join(sorted(others))} publishes the same results: subscribers receive both, mixed"
        cameras = sorted(_full_name(info) for info in images if info.topic_type == self._type)
        if len(cameras) < 2:
            return ""
        return (
            f"{len(cameras)} publishers send images on this topic, and their frames mix: {', '.join(cameras)} "
            "(a killed publisher counts for another 20 s)"
        )


def _full_name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
