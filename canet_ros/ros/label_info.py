# SPDX-License-Identifier: Apache-2.0
"""Publishes the classes of a mask as ``vision_msgs/LabelInfo``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

from canet_ros.hints import optional_import_problem
from canet_ros.model.class_table import UNLABELLED, ClassTable
from canet_ros.ros import qos

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except Exception as error:  # a broken installation can raise anything
    LabelInfo, _IMPORT_PROBLEM = None, optional_import_problem("vision_msgs", error)

# Latching is not enough: a split rosbag has latched messages in its first file only.
REPEAT_S = 10.0


class LabelInfoTopics:
    """Publishes the classes of each camera, latched and again every ``REPEAT_S`` seconds.

    Without vision_msgs it logs the reason and publishes nothing.

    Args:
        prefixes: prefix of the result topics, by camera name.
    """

    def __init__(self, node: Node, prefixes: Mapping[str, str]) -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        self._timer: Any = None
        self._classes: ClassTable | None = None
        self._threshold = 0.0
        self._partial: Collection[str] = ()
        if LabelInfo is None:
            log = node.get_logger().warning if "broken" in _IMPORT_PROBLEM else node.get_logger().info
            log(
                f"label_info and objects are not published: {_IMPORT_PROBLEM}; class_names and class_colors replace "
                "label_info"
            )
            return
        self._publishers = {
            camera: qos.create_publisher(
                node, LabelInfo, f"{prefix}/label_info", node.get_logger().error, latched=True
            )
            for camera, prefix in prefixes.items()
        }
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # ROS time may stand still
        self._timer = node.create_timer(REPEAT_S, self._publish, clock=steady)

    def publish(self, classes: ClassTable, threshold: float, partial: Collection[str]) -> None:
        """Publish these classes now and periodically.

        Args:
            threshold: confidence (0..1) below which pixels are unlabelled.
            partial: cameras with pixels outside their region or under their ignore mask.
        """
        self._classes = classes
        self._partial = partial
        self._threshold = threshold
        self._publish()

    def follow_threshold(self, threshold: float) -> None:
        if threshold != self._threshold:
            self._threshold = threshold
            self._publish()

    def destroy(self) -> None:
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        if self._timer is not None:
            self._node.destroy_timer(self._timer)

    def _publish(self) -> None:
        if self._classes is None or not self._publishers:
            return
        stamp = self._node.get_clock().now().to_msg()
        for camera, publisher in self._publishers.items():
            can_be_unlabelled = self._threshold > 0 or camera in self._partial
            message = LabelInfo(threshold=self._threshold)
            message.header.stamp = stamp
            names = class_map(self._classes, can_be_unlabelled)
            message.class_map = [VisionClass(class_id=index, class_name=name) for index, name in names]
            publisher.publish(message)


def class_map(classes: ClassTable, can_be_unlabelled: bool) -> list[tuple[int, str]]:
    """Ids and names of all values of a mask."""
    return [*enumerate(classes.names), *([(UNLABELLED, "unlabelled")] if can_be_unlabelled else [])]
