# SPDX-License-Identifier: Apache-2.0
"""Why nothing comes from a camera, said when it begins and when it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rclpy.node import Node

from canet_ros.image_transports import transport_content
from canet_ros.launching.network import late_interfaces
from canet_ros.launching.topic_hints import (
    MESSAGE_TYPES,
    NO_IMAGES,
    CameraChoice,
    suffix_warning,
    topic_hint,
)
from canet_ros.ros.camera import Camera
from canet_ros.ros.camera_health import TopicState, mixed_problem, topic_state

# What a change of is worth a line in the log: the topic's state, and what is known beside it.
_Finding = tuple[object, ...]
_FINE: _Finding = (TopicState.PUBLISHED,)
_SILENT: _Finding = (TopicState.PUBLISHED, "silent")


class CameraWatch:
    """Looks at the graph for one camera, and logs each change of what it finds.

    Args:
        interfaces: network interfaces and their addresses when the node started.

    Attributes:
        trouble: why no images come, in words; empty while they come, or could if somebody wanted results.
    """

    def __init__(self, node: Node, camera: Camera, transport: str, interfaces: Mapping[str, str]) -> None:
        self.trouble = ""
        self._node = node
        self._camera = camera
        self._interfaces = interfaces
        self._present = CameraChoice(camera.name, transport)
        self._type = MESSAGE_TYPES[transport]
        self._kind: _Finding = _FINE
        self._kind_since_s = time.monotonic()
        self._said_kind: _Finding = _FINE
        self._others: tuple[str, ...] = ()
        self._cameras: tuple[str, ...] = ()
        warning = suffix_warning(camera.name, transport)
        if warning:
            node.get_logger().warning(warning)

    def look(self, stale_after_s: float) -> None:
        """Look now; trouble is said once it has lasted for ``stale_after_s``."""
        topic, now_s = self._camera.input.image_topic, time.monotonic()
        publishers = self._node.get_publishers_info_by_topic(topic)
        kind, text = self._find(publishers, stale_after_s)
        if kind != self._kind:
            self._kind, self._kind_since_s = kind, now_s
        lasts = kind in (_FINE, _SILENT) or now_s - self._kind_since_s >= stale_after_s
        self.trouble = text
        if lasts and kind != self._said_kind:
            self._node.get_logger().warning(f"{topic}: {text or 'there again'}")
            self._said_kind = kind
        self._look_for_rivals(publishers)

    def forget(self) -> None:
        """What comes next is another time that the node is active."""
        self.trouble = ""
        self._kind = self._said_kind = _FINE
        self._kind_since_s = time.monotonic()

    def rivals(self) -> str:
        """Who else publishes our results, or the camera's images, in words; empty: nobody."""
        if self._others:
            return f"the same results are also published by {', '.join(self._others)}: subscribers get both, mixed"
        mixed = mixed_problem(self._cameras)
        return f"{mixed} (one that was killed counts for 20 s more)" if mixed else ""

    def _find(self, publishers: list[Any], stale_after_s: float) -> tuple[_Finding, str]:
        """What is wrong, and the same in words; empty: nothing is."""
        topic = self._camera.input.image_topic
        silent_s = self._camera.silent_s()
        asked = self._camera.input.image_qos()
        state, reason = topic_state(publishers, (self._type,), () if asked is None else (asked,))
        if state is TopicState.NO_PUBLISHER:
            hint = self._hint()
            late = late_interfaces(self._interfaces)
            # Only these hints are worth saying it again: the first may come before others are discovered.
            hints = [words for words in ("image_transport", NO_IMAGES) if words in hint]
            hint += late
            if silent_s is not None and silent_s > stale_after_s:
                text = f"nothing has come on {topic} for {silent_s:.1f} s: nothing publishes it{hint}"
            else:
                text = f"nothing publishes {topic}{hint}"
            return (state, *hints, late), text
        if state is TopicState.WRONG_TYPE:
            content = transport_content(publishers[0].topic_type, topic)
            if content:
                told = f"{topic} holds {content}: image_transport's republish node makes images of it"
                return (state,), told
            return (state,), f"{topic} carries {reason}, not {self._type}{self._hint()}"
        if state is TopicState.QOS_MISMATCH:
            return (state,), (
                f"nothing can come on {topic}, because the quality of service of its publisher does not fit: {reason}"
            )
        if silent_s is not None and silent_s > stale_after_s:
            return _SILENT, f"nothing has come on {topic} for {silent_s:.1f} s, though it has a publisher"
        return _FINE, ""

    def _hint(self) -> str:
        node = self._node
        images = [node.resolve_topic_name(name) for name in node.get_parameter("image_topics").value]
        return topic_hint(
            self._present,
            others=[image for image in images if image != self._camera.name],
            existing=dict(node.get_topic_names_and_types()),
            own={publisher.topic_name for publisher in node.publishers},
        )

    def _look_for_rivals(self, images: list[Any]) -> None:
        own = (self._node.get_namespace(), self._node.get_name())
        publishers = self._node.get_publishers_info_by_topic(self._camera.outputs.mask_topic)
        names = [(info.node_namespace, info.node_name) for info in publishers]
        others = {_full(name) for name in names if name != own}
        # A node of our own name and namespace is the other one that somebody started by mistake.
        if names.count(own) > 1:
            others.add(f"another {_full(own)}")
        cameras = tuple(
            sorted(_full((i.node_namespace, i.node_name)) for i in images if i.topic_type == self._type)
        )
        if (tuple(sorted(others)), cameras) != (self._others, self._cameras):
            self._others, self._cameras = tuple(sorted(others)), cameras
            if self.rivals():
                self._node.get_logger().warning(f"{self._camera.name}: {self.rivals()}")


def _full(name: tuple[str, str]) -> str:
    return "/".join((name[0].rstrip("/"), name[1]))
