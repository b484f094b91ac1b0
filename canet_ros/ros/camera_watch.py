# SPDX-License-Identifier: Apache-2.0
"""Logs when a camera's images stop, why, and when they resume."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rclpy.node import Node

from canet_ros.image_transports import transport_content
from canet_ros.launching.network import late_interfaces
from canet_ros.launching.topic_hints import (
    MESSAGE_TYPES,
    CameraChoice,
    suffix_warning,
    topic_hint,
)
from canet_ros.ros.camera import Camera
from canet_ros.ros.camera_health import TopicState, mixed_problem, topic_state

_AS_EXPECTED = (TopicState.PUBLISHED, "")


class CameraWatch:
    """Checks the ROS graph for one camera and logs each change.

    Args:
        interfaces: network interfaces and their addresses when the node started.

    Attributes:
        topic_problem: why no images arrive, as text; empty: they arrive, or would if the node subscribed.
    """

    def __init__(self, node: Node, camera: Camera, transport: str, interfaces: Mapping[str, str]) -> None:
        self.topic_problem = ""
        self._node = node
        self._camera = camera
        self._interfaces = interfaces
        self._present = CameraChoice(camera.name, transport)
        self._type = MESSAGE_TYPES[transport]
        self._found = self._logged = _AS_EXPECTED
        self._found_s = time.monotonic()
        self._other_nodes: tuple[str, ...] = ()
        self._cameras: tuple[str, ...] = ()
        warning = suffix_warning(camera.name, transport)
        if warning:
            node.get_logger().warning(warning)

    def check(self, stale_after_s: float) -> None:
        """Check now; a problem is logged once it has lasted for ``stale_after_s``."""
        topic, now_s = self._camera.input.image_topic, time.monotonic()
        publishers = self._node.get_publishers_info_by_topic(topic)
        state, text, hint = self._find(publishers, stale_after_s)
        if (state, hint) != self._found:
            self._found, self._found_s = (state, hint), now_s
        self.topic_problem = text + hint
        settled = state in (TopicState.PUBLISHED, TopicState.SILENT) or now_s - self._found_s >= stale_after_s
        if settled and self._found != self._logged:
            self._node.get_logger().warning(f"{topic}: {self.topic_problem or self._recovery()}")
            self._logged = self._found
        self._check_rivals(publishers)

    def reset(self) -> None:
        """Start afresh when the node is activated."""
        self.topic_problem = ""
        self._found = self._logged = _AS_EXPECTED
        self._found_s = time.monotonic()

    def rivals(self) -> str:
        """Other publishers of our results or of the camera's images, as text; empty: none."""
        if self._other_nodes:
            nodes = ", ".join(self._other_nodes)
            return f"{nodes} publishes the same results: subscribers receive both, mixed"
        mixed = mixed_problem(self._cameras)
        return f"{mixed} (a killed publisher counts for another 20 s)" if mixed else ""

    def _recovery(self) -> str:
        if self._logged[0] is TopicState.SILENT:
            return "images resumed"
        subscribed = self._camera.input.subscribed_since_s is not None
        return f"publisher is back{'; images resumed' if subscribed else ''}"

    def _find(self, publishers: list[Any], stale_after_s: float) -> tuple[TopicState, str, str]:
        """State of the topic, its description, and a hint whose change is worth another line in the log."""
        topic = self._camera.input.image_topic
        silent_s = self._camera.silent_s()
        requested = self._camera.input.image_qos()
        state, reason = topic_state(publishers, (self._type,), () if requested is None else (requested,))
        silent = silent_s is not None and silent_s > stale_after_s
        if state is TopicState.NO_PUBLISHER:
            text = f"no publisher of {topic}" + (
                f"; no image received for {silent_s:.1f} s" if silent else ""
            )
            return state, text, self._hint() + late_interfaces(self._interfaces)
        if state is TopicState.WRONG_TYPE:
            content = transport_content(publishers[0].topic_type, topic)
            if content:
                return (
                    state,
                    f"{topic} carries {content}: convert it with image_transport's republish node",
                    "",
                )
            return state, f"{topic} carries {reason}, not {self._type}", self._hint()
        if state is TopicState.QOS_MISMATCH:
            return state, f"QoS of the publisher of {topic} is incompatible: {reason}", ""
        if silent:
            text = f"no image received on {topic} for {silent_s:.1f} s, although it has a publisher"
            return TopicState.SILENT, text, ""
        return *_AS_EXPECTED, ""

    def _hint(self) -> str:
        node = self._node
        images = [node.resolve_topic_name(name) for name in node.get_parameter("image_topics").value]
        return topic_hint(
            self._present,
            others=[image for image in images if image != self._camera.name],
            existing=dict(node.get_topic_names_and_types()),
            own={publisher.topic_name for publisher in node.publishers},
        )

    def _check_rivals(self, images: list[Any]) -> None:
        own = (self._node.get_namespace(), self._node.get_name())
        publishers = self._node.get_publishers_info_by_topic(self._camera.outputs.mask_topic)
        names = [(info.node_namespace, info.node_name) for info in publishers]
        others = {_full(name) for name in names if name != own}
        # A second node of the same name and namespace, started by mistake.
        if names.count(own) > 1:
            others.add(f"another {_full(own)}")
        cameras = tuple(
            sorted(_full((i.node_namespace, i.node_name)) for i in images if i.topic_type == self._type)
        )
        if (tuple(sorted(others)), cameras) != (self._other_nodes, self._cameras):
            self._other_nodes, self._cameras = tuple(sorted(others)), cameras
            if self.rivals():
                self._node.get_logger().warning(f"{self._camera.name}: {self.rivals()}")


def _full(name: tuple[str, str]) -> str:
    return "/".join((name[0].rstrip("/"), name[1]))
