# SPDX-License-Identifier: Apache-2.0
"""Publishes the results of one camera. Outputs without a subscriber are not computed."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from canet_ros.formats import Groups
from canet_ros.messages.camera_info import scaled_camera_info
from canet_ros.messages.clouds import CloudError
from canet_ros.messages.images import ImageMessageError
from canet_ros.messages.points import label_message
from canet_ros.messages.results import MESSAGE_OUTPUTS, points_message
from canet_ros.pipeline.outputs import (
    CAMERA_INFO,
    COMPRESSED,
    OBJECTS,
    ImageOutput,
    ProcessOptions,
    image_outputs,
    point_outputs,
    render,
)
from canet_ros.pipeline.process import Frame, postprocess
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.pipeline.visualization import color_lookup_table
from canet_ros.ros import qos
from canet_ros.ros.cloud_input import CloudInput
from canet_ros.ros.encoder import Encoder
from canet_ros.ros.fault_log import Fault
from canet_ros.ros.ground import GroundTopics
from canet_ros.ros.image_conversion import (
    compressed_message,
    image_message,
    message_class,
    new_message,
)
from canet_ros.ros.statistics import Statistics

GROUND = "ground"


@dataclass(frozen=True)
class Result:
    """One segmented frame.

    Attributes:
        header: of the camera message, copied to every result.
        frame: the camera's image.
        segmentation: at the network's resolution; None: only camera_info has subscribers.
        camera_info: the camera's; None: none received.
        size: (width, height) of the results, pixels.
        cloud: matching PointCloud2 or depth image; None: none, or its points have no subscriber.
    """

    header: Any
    frame: Frame
    segmentation: Segmentation | None
    camera_info: Any | None
    size: tuple[int, int]
    cloud: Any | None = None


class CameraOutputs:
    """Publishers of one camera, all under one prefix.

    Args:
        prefix_before_remapping: prefix without remapping of the image topic; remapping rules may use either.
        clouds: of the camera; None: no labelled points.
        ground: of the node, in which the camera has the name ``prefix``; None: no free space.
        statistics: of the camera; receives the encoding time.
        on_qos_problem: called with a description of incompatible QoS.
        on_fault: called when a result cannot be made of what was received.
    """

    def __init__(
        self,
        node: Node,
        prefix: str,
        prefix_before_remapping: str,
        statistics: Statistics,
        on_qos_problem: Callable[[str], None],
        on_fault: Callable[[Fault, str], None],
        clouds: CloudInput | None = None,
        ground: GroundTopics | None = None,
    ) -> None:
        self.mask_topic = f"{prefix}/mask"
        self._node = node
        self._prefix = prefix
        self._prefix_before_remapping = prefix_before_remapping
        self._statistics = statistics
        self._on_qos_problem = on_qos_problem
        self._on_fault = on_fault
        self._clouds = clouds
        self._ground = ground
        self._groups: Groups | None = None
        # Replaced, never modified: two other threads read them.
        self._image_outputs = image_outputs({})
        self._point_outputs = point_outputs({})
        self._publishers: dict[str, Any] = {}
        self._publishing = threading.Lock()
        self.follow_groups({})

    def follow_groups(self, groups: Groups) -> None:
        """Create and destroy topics to match these class groups."""
        if groups == self._groups:
            return
        images, points = image_outputs(groups), {} if self._clouds is None else point_outputs(groups)
        types = {
            CAMERA_INFO: CameraInfo,
            **dict.fromkeys(images, Image),
            **{f"{name}{COMPRESSED}": CompressedImage for name, output in images.items() if output.codec},
            **dict.fromkeys(points, PointCloud2),
            **_message_types(groups),
        }
        remaining = {name: publisher for name, publisher in self._publishers.items() if name in types}
        new = {name: self._create(name, kind) for name, kind in types.items() if name not in remaining}
        with self._publishing:
            removed = [publisher for name, publisher in self._publishers.items() if name not in remaining]
            self._groups, self._publishers = groups, {**remaining, **new}
            self._image_outputs, self._point_outputs = images, points
            for publisher in removed:
                self._node.destroy_publisher(publisher)

    def destroy(self) -> None:
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers = {}

    def wanted(self) -> frozenset[str]:
        """Names of the outputs with subscribers."""
        ground = {GROUND} if self._ground is not None and self._ground.wanted() else set()
        return frozenset(n for n, p in self._publishers.items() if p.get_subscription_count()) | ground

    def needing_camera_info(self, wanted: frozenset[str]) -> frozenset[str]:
        """Those of these outputs that require camera_info."""
        return wanted & {CAMERA_INFO, GROUND} | self.clouds_in(wanted)

    def clouds_in(self, wanted: frozenset[str]) -> frozenset[str]:
        """Those of these outputs that are clouds."""
        return wanted & self._point_outputs.keys()

    def publish(
        self,
        wanted: frozenset[str],
        result: Result,
        options: ProcessOptions,
        jpeg_quality: int,
        encoder: Encoder,
    ) -> None:
        """Publish the outputs in ``wanted``; the encoder's thread publishes compressed ones later."""
        if result.segmentation is not None:
            drawing = postprocess(result.frame, result.segmentation, options)
            for name, output, pixels, raw, compressed in render(drawing, self._image_outputs, wanted):
                if raw:
                    self._send(name, image_message(pixels, output.encoding, result.header))
                if compressed:
                    task = functools.partial(self._encode, name, output, pixels, result.header, jpeg_quality)
                    if encoder.submit(f"{self._prefix}/{name}", task):
                        self._statistics.count("not_encoded")
            for name in wanted & MESSAGE_OUTPUTS.keys():
                self._send(name, MESSAGE_OUTPUTS[name].build(new_message, result.header, drawing))
            if result.cloud is not None and result.camera_info is not None:
                self._publish_clouds(self.clouds_in(wanted), result, drawing.segmentation, options)
            if self._ground is not None and GROUND in wanted and result.camera_info is not None:
                try:
                    self._ground.add(
                        self._prefix, result.header, result.camera_info, drawing, self._groups or {}
                    )
                except CloudError as error:
                    self._on_fault(Fault.GROUND_FAILED, f"ground: {error}")
        if CAMERA_INFO in wanted and result.camera_info is not None:
            self._publish_camera_info(result)

    def _publish_clouds(
        self, wanted: frozenset[str], result: Result, segmentation: Segmentation, options: ProcessOptions
    ) -> None:
        clouds, cloud, outputs = self._clouds, result.cloud, self._point_outputs
        assert clouds is not None
        assert cloud is not None
        try:
            points = label_message(
                cloud,
                None
                if clouds.topic.depth
                else clouds.to_camera(cloud.header.frame_id, result.header.frame_id),
                result.camera_info,
                result.frame.image.shape[:2],
                segmentation,
                color_lookup_table(options.classes),
            )
        except CloudError as error:  # masks are not affected
            self._statistics.count("bad_clouds")
            self._on_fault(Fault.POINTS_FAILED, f"{clouds.topic.name}: {error}")
            return
        for name in wanted & outputs.keys():
            classes = outputs[name](options.classes)
            chosen = points.organized(classes) if options.organized_points else points.of(classes)
            self._send(name, points_message(new_message, chosen, cloud.header))

    def _publish_camera_info(self, result: Result) -> None:
        try:
            scaled = scaled_camera_info(result.camera_info, result.size)
        except ImageMessageError as error:  # uncalibrated camera; masks are not affected
            self._on_fault(Fault.CAMERA_INFO_INVALID, str(error))
            return
        scaled.header = result.header
        self._send(CAMERA_INFO, scaled)

    def _encode(
        self, name: str, output: ImageOutput, pixels: NDArray[np.uint8], header: Any, jpeg_quality: int
    ) -> None:
        start_s = time.monotonic()
        message = compressed_message(pixels, output.encoding, header, output.codec, jpeg_quality)
        self._send(f"{name}{COMPRESSED}", message)
        self._statistics.time({"encode": (time.monotonic() - start_s) * 1e3})

    def _send(self, name: str, message: Any) -> None:
        with self._publishing:
            publisher = self._publishers.get(name)
            if publisher is not None:  # else its group was removed meanwhile
                publisher.publish(message)

    def _create(self, name: str, message_type: Any) -> Any:
        return qos.create_publisher(self._node, message_type, self._topic(name), self._on_qos_problem)

    def _topic(self, name: str) -> str:
        """Topic of a result after remapping; its compressed form follows it, as in image_transport."""
        base = name.removesuffix(COMPRESSED)
        resolve = self._node.resolve_topic_name
        for prefix in (self._prefix, self._prefix_before_remapping):
            topic = f"{prefix}/{base}"
            if resolve(topic) != topic:
                return str(resolve(topic)) + name.removeprefix(base)
        return f"{self._prefix}/{name}"


def _message_types(groups: Groups) -> dict[str, Any]:
    """Types of the outputs that are neither images nor clouds; vision_msgs may be missing."""
    types = {}
    for name, output in MESSAGE_OUTPUTS.items():
        if groups or name != OBJECTS:
            with contextlib.suppress(Exception):  # of a broken installation; ``label_info`` logs it
                types[name] = message_class(output.msgtype)
    return types
