# SPDX-License-Identifier: Apache-2.0
"""A camera's point clouds or depth images, received while labelled points have a subscriber and searched by stamp."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from canet_ros.formats import parse_pose
from canet_ros.messages.compressed_depth import TRANSPORT
from canet_ros.messages.projection import rigid_transform
from canet_ros.ros import qos
from canet_ros.ros.statistics import nanoseconds
from canet_ros.ros.transforms import Transforms

_DEPTH = 5
_MAX_CLOUDS, _MAX_DEPTHS = 10, 30  # a second of a typical lidar and of a depth camera


@dataclass(frozen=True)
class CloudTopic:
    """Topic with the points of a camera.

    Attributes:
        name: resolved.
        depth: whether it carries depth images aligned with the camera's images, instead of clouds.
        extrinsics: for clouds: transform of points to the camera's optical frame, x, y, z in m and quaternion x, y, z,
            w; empty: look it up in tf2.
    """

    name: str
    depth: bool = False
    extrinsics: str = ""

    @property
    def message_type(self) -> Any:
        if not self.depth:
            return PointCloud2
        return CompressedImage if self.name.endswith(f"/{TRANSPORT}") else Image


class CloudInput:
    """Point clouds or depth images of one topic.

    Args:
        on_qos_problem: called with a description of incompatible QoS or a wrong type.
    """

    def __init__(self, node: Node, topic: CloudTopic, on_qos_problem: Callable[[str], None]) -> None:
        self.topic = topic
        self._node = node
        # Depth images are in the camera's own frame.
        pose = parse_pose(topic.extrinsics)
        self._given = np.eye(3, 4) if topic.depth else None if pose is None else rigid_transform(pose)
        self._on_qos_problem = on_qos_problem
        self._clouds: deque[Any] = deque(maxlen=_MAX_DEPTHS if topic.depth else _MAX_CLOUDS)
        self._lock = threading.Lock()
        self._wrong_types: set[str] = set()
        self._subscription: Any = None
        self._transforms = Transforms(node, "cloud_extrinsics")

    def follow(self, wanted: bool) -> None:
        """Subscribe while the points have a subscriber."""
        if wanted and self._subscription is None:
            if self._given is None:
                self._transforms.listen()
            self._subscription = qos.create_subscription(
                self._node, self.topic.message_type, self.topic.name, self._put, _DEPTH, self._on_qos_problem
            )
        elif not wanted and self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
            with self._lock:
                self._clouds.clear()
        if wanted:
            self._check_types()

    def destroy(self) -> None:
        self.follow(False)
        self._transforms.destroy()

    def take(self, stamp: Any, slop_s: float) -> Any | None:
        """Remove and return the cloud or depth image nearest to a stamp, within ``slop_s`` seconds; None: none."""
        wanted_ns = nanoseconds(stamp)
        with self._lock:
            nearest = min(
                self._clouds, key=lambda c: abs(nanoseconds(c.header.stamp) - wanted_ns), default=None
            )
            if nearest is None or abs(nanoseconds(nearest.header.stamp) - wanted_ns) > slop_s * 1e9:
                return None
            self._clouds.remove(nearest)
            return nearest

    def to_camera(self, cloud_frame: str, camera_frame: str) -> NDArray[np.float64]:
        """Transform (3, 4) [R|t] between two frames: given extrinsics, identity in one frame, else the latest of tf2.

        Raises:
            CloudError: no transform is available.
        """
        return self._transforms.find(camera_frame, cloud_frame) if self._given is None else self._given

    def _check_types(self) -> None:
        """Report a topic published with another type, such as a compressed cloud."""
        expected = f"sensor_msgs/msg/{self.topic.message_type.__name__}"
        publishers = self._node.get_publishers_info_by_topic(self.topic.name)
        types = {publisher.topic_type for publisher in publishers}
        wrong_types = set() if expected in types else types
        if wrong_types and wrong_types != self._wrong_types:
            hint = f"; compressed depth images are taken from <topic>/{TRANSPORT}" if self.topic.depth else ""
            self._on_qos_problem(
                f"{self.topic.name} carries {', '.join(sorted(wrong_types))}, not {expected}{hint}"
            )
        self._wrong_types = wrong_types

    def _put(self, cloud: Any) -> None:
        with self._lock:
            self._clouds.append(cloud)
