# SPDX-License-Identifier: Apache-2.0
"""Publishes the free space on the ground that all cameras see: ``ground/scan`` and ``ground/grid``."""

from __future__ import annotations

import array
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import LaserScan

from canet_ros.formats import Groups, parse_heights, parse_pose
from canet_ros.hints import optional_import_problem
from canet_ros.messages.clouds import CloudError
from canet_ros.messages.ground import GroundOptions, GroundSight, GroundView, merge
from canet_ros.messages.projection import Projection, camera_projection, rigid_transform
from canet_ros.pipeline.outputs import RenderInput, membership_table
from canet_ros.ros import qos
from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.image_conversion import message_class
from canet_ros.ros.parameters import NodeParameters
from canet_ros.ros.statistics import nanoseconds
from canet_ros.ros.transforms import Transforms


class GroundTopics:
    """Publishers of the node; nothing is computed unless one of them has a subscriber.

    Args:
        cameras: names of the cameras, in the order of ``camera_extrinsics``.

    Raises:
        ValueError: nav_msgs cannot be imported.
    """

    def __init__(
        self, node: Node, settings: NodeParameters, cameras: Sequence[str], faults: FaultLog
    ) -> None:
        try:
            self._grid_type = message_class("nav_msgs/msg/OccupancyGrid")
        except Exception as error:  # a broken installation can raise anything
            problem = optional_import_problem("nav_msgs", error)
            raise ValueError(f"ground_group: {problem}; ground/grid needs it") from error
        self._node = node
        self._settings = settings
        self._group, self._base_frame = settings.value("ground_group"), settings.value("base_frame")
        self._options = GroundOptions(
            settings.value("ground_range"),
            settings.value("ground_resolution"),
            parse_heights(settings.value("ground_heights")),
            settings.value("ground_min_confidence"),
        )
        size_m = settings.value("ground_size")
        side = min(round(size_m / self._options.resolution_m) or self._options.side, self._options.side)
        self._margin = (self._options.side - side) // 2
        poses = [parse_pose(text) for text in (*settings.value("camera_extrinsics"), *[""] * len(cameras))]
        self._given = {name: rigid_transform(pose) if pose else None for name, pose in zip(cameras, poses)}
        self._transforms = Transforms(node, "camera_extrinsics")
        self._views: dict[str, tuple[Projection, NDArray[np.float64], GroundView]] = {}
        self._latest: dict[str, tuple[int, GroundSight]] = {}  # with the stamp in ns
        report = functools.partial(faults.report, "node", Fault.QOS_INCOMPATIBLE)
        self._publishers = {
            name: qos.create_publisher(node, kind, node.resolve_topic_name(name), report)
            for name, kind in (("ground/scan", LaserScan), ("ground/grid", self._grid_type))
        }

    def wanted(self) -> bool:
        """Whether there is a subscriber."""
        return any(publisher.get_subscription_count() for publisher in self._publishers.values())

    def follow_subscribers(self) -> None:
        """Listen to tf2 once it is needed."""
        if any(pose is None for pose in self._given.values()) and self.wanted():
            self._transforms.listen()

    def add(self, camera: str, header: Any, info: Any, result: RenderInput, groups: Groups) -> None:
        """Add a camera's segmented image; publish when those of the cameras of the previous round have come too.

        Args:
            header: of the image.
            info: its camera_info.

        Raises:
            CloudError: the pose is missing, calibration or pose cannot be used, or the group has been removed.
        """
        if self._group not in groups:
            raise CloudError(f"groups does not have {self._group}, the ground_group")
        mask, confidence = result.segmentation.mask, result.segmentation.confidence
        view = self._view(camera, camera_projection(info, (mask.shape[1], mask.shape[0])), header)
        is_ground = membership_table(groups[self._group], result.options.classes) > 0
        stamp_ns, slop_ns = nanoseconds(header.stamp), self._settings.value("sync_slop") * 1e9
        previous_ns, _ = self._latest.get(camera, (-math.inf, None))
        self._latest[camera] = (stamp_ns, view.look(is_ground, mask, confidence))
        others = [entry for entry in self._latest.values() if abs(entry[0] - stamp_ns) > slop_ns]
        if not any(abs(other_ns - previous_ns) <= slop_ns for other_ns, _ in others):
            self._publish([entry for entry in self._latest.values() if entry not in others])

    def destroy(self) -> None:
        self._transforms.destroy()
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers = {}

    def _view(self, camera: str, projection: Projection, header: Any) -> GroundView:
        """Tables of the camera, made anew when its calibration or its pose has changed."""
        pose = self._given[camera]
        if pose is None:
            pose = self._transforms.find(self._base_frame, header.frame_id, header.stamp)
        known = self._views.get(camera)
        if known is None or known[0] is not projection or not np.array_equal(known[1], pose):
            known = self._views[camera] = (projection, pose, GroundView(projection, pose, self._options))
        return known[2]

    def _publish(self, group: list[tuple[int, GroundSight]]) -> None:
        ranges, cells = merge([sight for _, sight in group], self._options)
        options, margin = self._options, self._margin
        stamp = Time(nanoseconds=max(stamp_ns for stamp_ns, _ in group)).to_msg()
        scan = LaserScan(range_max=options.range_m, angle_increment=2 * math.pi / options.bearings)
        scan.header.stamp, scan.header.frame_id = stamp, self._base_frame
        scan.angle_min, scan.angle_max = -math.pi, math.pi - scan.angle_increment
        scan.ranges = array.array("f", ranges.tobytes())
        grid = self._grid_type(header=scan.header)
        side = options.side - 2 * margin
        grid.info.map_load_time, grid.info.resolution = stamp, options.resolution_m
        grid.info.width = grid.info.height = side
        grid.info.origin.position.x = grid.info.origin.position.y = -side / 2 * options.resolution_m
        grid.info.origin.position.z = options.heights_m[0]
        grid.data = array.array("b", cells[margin : margin + side, margin : margin + side].tobytes())
        for name, message in (("ground/scan", scan), ("ground/grid", grid)):
            publisher = self._publishers.get(name)
            if publisher is not None and publisher.get_subscription_count():
                publisher.publish(message)
