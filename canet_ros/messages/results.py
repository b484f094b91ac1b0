# SPDX-License-Identifier: Apache-2.0
"""Results that are not images, as messages for the node and for bags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from canet_ros.messages.points import FIELDS
from canet_ros.pipeline.objects import Component, components
from canet_ros.pipeline.outputs import OBJECTS, SHARES, RenderInput

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"


class New(Protocol):
    """Makes a message from all its fields; numbers of an array are a NumPy array."""

    def __call__(self, msgtype: str, **fields: Any) -> Any: ...


class MessageOutput(NamedTuple):
    """A topic with one message per camera image.

    Attributes:
        build: makes the message; its second argument is the ``std_msgs/Header`` of the camera image.
    """

    msgtype: str
    build: Callable[[New, Any, RenderInput], Any]


def points_message(new: New, points: NDArray[Any], header: Any) -> Any:
    """A ``PointCloud2`` of records of ``FIELDS``, (n,), or (H, W) organized with NaN."""
    height, width = points.shape if points.ndim == 2 else (1, len(points))
    return new(
        POINT_CLOUD,
        header=header,
        height=height,
        width=width,
        fields=[
            new("sensor_msgs/msg/PointField", name=name, offset=offset, datatype=kind, count=1)
            for name, offset, kind in FIELDS
        ],
        is_bigendian=False,
        point_step=points.itemsize,
        row_step=width * points.itemsize,
        data=points.reshape(-1).view(np.uint8),
        is_dense=height == 1,
    )


def _shares(new: New, header: Any, drawing: RenderInput) -> Any:
    dimensions = [
        new("std_msgs/msg/MultiArrayDimension", label=name, size=1, stride=1)
        for name in drawing.options.classes.names
    ]
    layout = new("std_msgs/msg/MultiArrayLayout", dim=dimensions, data_offset=0)
    return new("std_msgs/msg/Float32MultiArray", layout=layout, data=drawing.shares())


def _objects(new: New, header: Any, drawing: RenderInput) -> Any:
    detections = [_detection(new, header, component) for component in components(drawing)]
    return new("vision_msgs/msg/Detection2DArray", header=header, detections=detections)


def _detection(new: New, header: Any, found: Component) -> Any:
    def point(x: float, y: float) -> Any:
        return new("vision_msgs/msg/Point2D", x=x, y=y)

    # Pixel centres have integer coordinates. vision_msgs has no field for an area.
    centre = point(found.x + (found.width - 1) / 2, found.y + (found.height - 1) / 2)
    box = new(
        "vision_msgs/msg/BoundingBox2D",
        center=new("vision_msgs/msg/Pose2D", position=centre, theta=0.0),
        size_x=float(found.width),
        size_y=float(found.height),
    )
    pose = new(
        "geometry_msgs/msg/Pose",
        position=new("geometry_msgs/msg/Point", x=found.centre[0], y=found.centre[1], z=float(found.area)),
        orientation=new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )
    result = new(
        "vision_msgs/msg/ObjectHypothesisWithPose",
        hypothesis=new("vision_msgs/msg/ObjectHypothesis", class_id=found.group, score=found.confidence),
        pose=new("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
    )
    return new("vision_msgs/msg/Detection2D", header=header, results=[result], bbox=box, id="")


MESSAGE_OUTPUTS = {
    SHARES: MessageOutput("std_msgs/msg/Float32MultiArray", _shares),
    OBJECTS: MessageOutput("vision_msgs/msg/Detection2DArray", _objects),
}
