# SPDX-License-Identifier: Apache-2.0
"""What the ids in a mask mean, as ``vision_msgs/LabelInfo`` beside each mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.clock import Clock
from rclpy.node import Node

from canet_ros.hints import not_imported
from canet_ros.inference.class_table import ClassTable
from canet_ros.ros import qos

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except Exception as error:  # of a broken installation, whatever it throws
    LabelInfo, _WITHOUT = None, not_imported("vision_msgs", error)

# Latched alone is not enough: a rosbag that is split holds latched messages in its first file only.
REPEAT_S = 10.0


class LabelInfoTopics:
    """Publishes the classes under each prefix, latched and again every ``REPEAT_S`` seconds.

    Without vision_msgs it says so in the log, and does nothing.
    """

    def __init__(self, node: Node, prefixes: Sequence[str], steady_clock: Clock) -> None:
        self._node = node
        self._publishers: list[Any] = []
        self._timer: Any = None
        self._classes: ClassTable | None = None
        self._threshold = 0.0
        if LabelInfo is None:
            say = node.get_logger().warning if "broken" in _WITHOUT else node.get_logger().info
            say(f"no label_info topics, because {_WITHOUT}; class_names and class_colors hold the same")
            return
        self._publishers = [
            node.create_publisher(
                LabelInfo, f"{prefix}/label_info", qos.latched_qos(), qos_overriding_options=qos.overrides()
            )
            for prefix in prefixes
        ]
        self._timer = node.create_timer(REPEAT_S, self._publish, clock=steady_clock)

    def show(self, classes: ClassTable, threshold: float) -> None:
        """Publish these classes, and the confidence (0..1) below which pixels are unlabelled, from now on."""
        self._classes = classes
        self._threshold = threshold
        self._publish()

    def follow_threshold(self, threshold: float) -> None:
        if threshold != self._threshold:
            self._threshold = threshold
            self._publish()

    def destroy(self) -> None:
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers = []
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def _publish(self) -> None:
        if self._classes is None or not self._publishers:
            return
        message = LabelInfo()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.class_map = [
            VisionClass(class_id=index, class_name=name) for index, name in enumerate(self._classes.names)
        ]
        message.threshold = self._threshold
        for publisher in self._publishers:
            publisher.publish(message)
