# SPDX-License-Identifier: Apache-2.0
"""One camera: subscriptions, publishers, statistics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rclpy import get_rmw_implementation_identifier
from rclpy.node import Node

from canet_ros.launching.camera_topics import CameraTopics
from canet_ros.messages.camera_info import outdated_problem
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.class_shares import ShareFilter
from canet_ros.pipeline.ood_monitor import OodMonitor
from canet_ros.pipeline.temporal_filter import TemporalFilter
from canet_ros.ros.camera_health import CameraSnapshot
from canet_ros.ros.camera_input import CameraInput
from canet_ros.ros.cloud_input import CloudInput, CloudTopic
from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.frame_log import FrameLog
from canet_ros.ros.frame_slots import LatestSlots, PutResult, RateLimit, ReceivedFrame
from canet_ros.ros.outputs import CameraOutputs
from canet_ros.ros.statistics import Statistics, nanoseconds
from canet_ros.ros.video_input import VideoMessage

if TYPE_CHECKING:
    from canet_ros.ros.ground import GroundTopics

_CAMERA_INFO_GRACE_S = 2.0  # the first camera_info may follow the first images


@dataclass
class FrameIntake:
    """Admission of frames, shared by all cameras of a node.

    Attributes:
        max_rate_hz: returns the current limit of frames per second and camera; 0: none.
        slots: replaced whenever an engine starts; closed slots refuse frames.
        enabled: False while the node is paused.
    """

    frame_log: FrameLog
    now_ns: Callable[[], int]
    max_rate_hz: Callable[[], float]
    slots: LatestSlots[ReceivedFrame] = field(default_factory=LatestSlots)
    enabled: bool = True


class Camera:
    """A camera, named by its resolved image topic.

    Args:
        results_before_remapping: prefix of the results without remapping of the image topic.
        transport: one of ``names.TRANSPORTS``.
        intake: receives each frame.
        cloud: source of the points to label.
        ground: of the node; None: no free space.

    Attributes:
        transform: camera transform; changes only between inferences.
        temporal_filter: of the masks.
        share_filter: smooths the shares of the classes.
        ood_monitor: warns about unfamiliar input.
        camera_info_problem: a camera_info that a subscriber needs is missing or outdated; empty: neither.
    """

    def __init__(
        self,
        node: Node,
        topics: CameraTopics,
        results_before_remapping: str,
        transport: str,
        intake: FrameIntake,
        faults: FaultLog,
        cloud: CloudTopic | None = None,
        ground: GroundTopics | None = None,
    ) -> None:
        self.name = topics.image
        self.transform = CameraTransform()
        self.ood_monitor = OodMonitor({})
        self.temporal_filter = TemporalFilter()
        self.share_filter = ShareFilter()
        self.statistics = Statistics()
        self.rate_limit = RateLimit()
        self.camera_info_problem = ""
        self._node = node
        self._intake = intake
        self._faults = faults
        self.input = CameraInput(
            node,
            topics,
            transport,
            self.statistics,
            on_received=lambda stamp: self.statistics.receive(stamp, intake.now_ns()),
            on_image=self._admit,
            on_qos_problem=self._on_qos_problem,
            on_unnumbered=lambda: faults.advise(
                "node",
                Fault.LOSSES_UNKNOWN,
                f"{get_rmw_implementation_identifier()} does not number messages: lost images cannot be counted; "
                "missing_by_stamp on /diagnostics estimates them from the stamps",
            ),
        )
        self.clouds = CloudInput(node, cloud, self._on_qos_problem) if cloud else None
        self.outputs = CameraOutputs(
            node,
            topics.results,
            results_before_remapping,
            self.statistics,
            on_qos_problem=self._on_qos_problem,
            on_fault=lambda kind, text: faults.report(self.name, kind, text),
            clouds=self.clouds,
            ground=ground,
        )

    def snapshot(self, topic_problem: str, rivals: str) -> CameraSnapshot:
        """Snapshot for diagnostics; the arguments are those of ``CameraSnapshot``."""
        topic = self.input.image_topic
        return CameraSnapshot(
            name=self.name,
            image_topic=topic,
            publishers=self._node.count_publishers(topic),
            statistics=self.statistics,
            silent_s=self.silent_s(),
            without_result_s=self.without_result_s(),
            fault=self._faults.last(self.name),
            topic_problem=topic_problem,
            rivals=rivals,
            out_of_distribution=self.ood_monitor.problem(),
            confidences=tuple(self.ood_monitor.values().items()),
            camera_info_problem=self.camera_info_problem,
            camera_info_latched=self.input.camera_info_latched,
            losses_counted=self.input.numbered,
        )

    def follow_subscribers(self) -> None:
        """Subscribe to the camera while its results have subscribers."""
        wanted = self.outputs.wanted()
        if self.clouds is not None:
            self.clouds.follow(bool(self.outputs.clouds_in(wanted)))
        if not wanted:
            self.input.unsubscribe()
        elif self.input.subscribed_since_s is None:
            self.statistics.reset_gaps()
            self.statistics.reset_losses()
            self.input.subscribe()

    def camera_info(self, stamp: Any, wanted: frozenset[str]) -> Any | None:
        """The camera_info for an image of this stamp; None: none received. Updates ``camera_info_problem``."""
        info = self.input.infos.match(stamp)
        subscribed_since_s = self.input.subscribed_since_s
        if subscribed_since_s is None or not self.outputs.needs_camera_info(wanted):
            self.camera_info_problem = ""
        elif time.monotonic() - subscribed_since_s > _CAMERA_INFO_GRACE_S:
            topic = self.input.camera_info_topic
            self.camera_info_problem = (
                f"no camera_info received on {topic}: masks are published without it"
                if info is None
                else outdated_problem(nanoseconds(info.header.stamp), nanoseconds(stamp))
            )
        if self.camera_info_problem:
            kind = Fault.CAMERA_INFO_MISSING if info is None else Fault.CAMERA_INFO_OUTDATED
            self._faults.advise(self.name, kind, self.camera_info_problem)
        return info

    def silent_s(self) -> float | None:
        """Seconds since the last image, or since the subscription; None while not subscribed."""
        subscribed_since_s = self.input.subscribed_since_s
        if subscribed_since_s is None:
            return None
        return time.monotonic() - max(subscribed_since_s, self.statistics.last_received_s or 0.0)

    def without_result_s(self) -> float | None:
        """Seconds since the first image received after the last result; None: no image is pending."""
        pending_since_s = self.statistics.pending_since_s
        if self.input.subscribed_since_s is None or pending_since_s is None:
            return None
        return time.monotonic() - pending_since_s

    def _admit(self, message: Any) -> None:
        """Put a frame into the camera's slot, unless the node is paused or the rate limit is reached."""
        received_s, intake = time.monotonic(), self._intake
        if isinstance(message, VideoMessage) and message.frame.problem:
            log = self._faults.remember if message.frame.starting else self._faults.report
            log(self.name, Fault.IMAGE_REFUSED, message.frame.problem)
            self._count_drop("bad", "dropped: bad", message)
            return
        if not intake.enabled:
            self._count_drop("paused", "dropped: paused", message)
            return
        result = intake.slots.put(
            self.name,
            ReceivedFrame(message, received_s),
            admits=lambda: self.rate_limit.allows(received_s, intake.max_rate_hz()),
        )
        if result is PutResult.REPLACED_OLDER:
            self._count_drop("replaced", "newer frame received; dropped the frame that was waiting", message)
        elif result is PutResult.REFUSED:
            self._count_drop("over_rate", "dropped: over_rate", message)

    def _count_drop(self, reason: str, outcome: str, message: Any) -> None:
        self.statistics.count(reason)
        self._intake.frame_log.log(self.name, message.header, outcome, {})

    def destroy(self) -> None:
        self.input.unsubscribe()
        if self.clouds is not None:
            self.clouds.destroy()
        self.outputs.destroy()

    def _on_qos_problem(self, problem: str) -> None:
        self.statistics.count("qos_problems")
        self._faults.remember(self.name, Fault.QOS_INCOMPATIBLE, problem)
        self._node.get_logger().error(f"{self.name}: {problem}")
