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
from canet_ros.messages.ground import GroundOptions, GroundSight, GroundSync, GroundView, merge
from canet_ros.messages.projection import Projection, camera_projection, rigid_transform
from canet_ros.pipeline.outputs import RenderInput, membership_table
from canet_ros.ros import qos
from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.parameters import NodeParameters
from canet_ros.ros.statistics import nanoseconds
from canet_ros.ros.transforms import Transforms

try:
    from nav_msgs.msg import OccupancyGrid
except Exception as error:  # a broken installation can raise anything
    OccupancyGrid, _IMPORT_PROBLEM = None, optional_import_problem("nav_msgs", error)


class GroundTopics:
    """Publishers of the node; nothing is computed unless one of them has a subscriber.

    Args:
        cameras: names of the cameras, in the order of ``camera_extrinsics``.

    Raises:
        ValueError: nav_msgs cannot be imported.
    """

    def __init__(
        self,
        node: Node,
        settings: NodeParameters,
        cameras: Sequence[str],
        faults: FaultLog,
    ) -> None:
        if OccupancyGrid is None:
            raise ValueError(f"ground_group: {_IMPORT_PROBLEM}; ground/grid needs it")
        self._node = node
        self._settings = settings
        self._group = str(settings.value("ground_group"))
        self._base_frame = str(settings.value("base_frame"))
        self._options = GroundOptions(
            settings.value("ground_range"),
            settings.value("ground_resolution"),
            parse_heights(settings.value("ground_heights")),
            settings.value("ground_min_confidence"),
        )
        size_m = settings.value("ground_size")
        side = min(round(size_m / self._options.resolution_m) or self._options.side, self._options.side)
        self._margin = (self._options.side - side) // 2
        extrinsics = [*settings.value("camera_extrinsics"), *[""] * len(cameras)]
        self._given = {name: parse_pose(text) for name, text in zip(cameras, extrinsics)}
        self._transforms = Transforms(node, "camera_extrinsics")
        self._views: dict[str, tuple[Projection, NDArray[np.float64], GroundView]] = {}
        self._sync = GroundSync()
        report = functools.partial(faults.report, "node", Fault.QOS_INCOMPATIBLE)
        self._publishers = {
            name: node.create_publisher(
                kind,
                name,
                qos.result_qos(),
                event_callbacks=qos.publisher_events(node.resolve_topic_name(name), report),
                qos_overriding_options=qos.overrides(),
            )
            for name, kind in (("ground/scan", LaserScan), ("ground/grid", OccupancyGrid))
        }

    def wanted(self) -> bool:
        """Whether there is a subscriber."""
        return any(publisher.get_subscription_count() for publisher in self._publishers.values())

    def follow_subscribers(self) -> None:
        """Listen to tf2 once it is needed."""
        if not all(self._given.values()) and self.wanted():
            self._transforms.listen()

    def add(self, camera: str, header: Any, info: Any | None, result: RenderInput, groups: Groups) -> None:
        """Add a camera's segmented image; publish when the images of all cameras have come.

        Args:
            header: of the image.
            info: its camera_info; None: none received.

        Raises:
            CloudError: calibration or pose is missing or cannot be used, or the group has been removed.
        """
        if info is None:
            raise CloudError("cannot locate the ground without camera_info")
        if self._group not in groups:
            raise CloudError(f"groups does not have {self._group}, the ground_group")
        mask, confidence = result.segmentation.mask, result.segmentation.confidence
        view = self._view(camera, camera_projection(info, (mask.shape[1], mask.shape[0])), header)
        is_ground = membership_table(groups[self._group], result.options.style.classes) > 0
        slop_ns = self._settings.value("sync_slop") * 1e9
        sight = view.look(is_ground, mask, confidence)
        for stamp_ns, sights in self._sync.add(camera, nanoseconds(header.stamp), sight, slop_ns):
            self._publish(stamp_ns, sights)

    def destroy(self) -> None:
        self._transforms.destroy()
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers = {}

    def _view(self, camera: str, projection: Projection, header: Any) -> GroundView:
        """Tables of the camera, made anew when its calibration or its pose has changed."""
        given = self._given[camera]
        pose = (
            rigid_transform(given)
            if given is not None
            else self._transforms.find(self._base_frame, header.frame_id, header.stamp)
        )
        known = self._views.get(camera)
        if known is not None and known[0] is projection and np.array_equal(known[1], pose):
            return known[2]
        view = GroundView(projection, pose, self._options)
        self._views[camera] = (projection, pose, view)
        return view

    def _publish(self, stamp_ns: int, sights: list[GroundSight]) -> None:
        ranges, cells = merge(sights, self._options)
        options, margin = self._options, self._margin
        stamp = Time(nanoseconds=stamp_ns).to_msg()
        scan = LaserScan(range_max=options.range_m, angle_increment=2 * math.pi / options.bearings)
        scan.header.stamp, scan.header.frame_id = stamp, self._base_frame
        scan.angle_min, scan.angle_max = -math.pi, math.pi - scan.angle_increment
        scan.ranges = array.array("f", ranges.tobytes())
        grid = OccupancyGrid(header=scan.header)
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
