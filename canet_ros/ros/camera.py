# SPDX-License-Identifier: Apache-2.0
"""One camera: subscriptions, admission of frames, publishers, statistics."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy import get_rmw_implementation_identifier
from rclpy.logging import LoggingSeverity
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from canet_ros.launching.camera_topics import CameraTopics, transported_topic
from canet_ros.messages.camera_info import CameraInfoBuffer, outdated_problem
from canet_ros.messages.images import decode_compressed, decode_image
from canet_ros.messages.video import VideoPacket
from canet_ros.pipeline.camera_transform import CameraTransform
from canet_ros.pipeline.class_shares import ShareFilter
from canet_ros.pipeline.ood_monitor import OodMonitor, Range
from canet_ros.pipeline.temporal_filter import TemporalFilter
from canet_ros.ros import qos
from canet_ros.ros.camera_health import CameraSnapshot
from canet_ros.ros.camera_watch import CameraWatch
from canet_ros.ros.cloud_input import CloudInput, CloudTopic
from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.frame_slots import LatestSlots, PutResult, RateLimit, ReceivedFrame
from canet_ros.ros.ground import GroundTopics
from canet_ros.ros.outputs import CameraOutputs
from canet_ros.ros.rclpy_compat import GIVES_MESSAGE_INFO
from canet_ros.ros.statistics import Statistics, nanoseconds
from canet_ros.ros.video_input import VideoInput, VideoMessage, video_message_type

_CAMERA_INFO_GRACE_S = 2.0  # the first camera_info may follow the first images
_IMAGE_DEPTH = 1  # only the newest image matters
_VIDEO_DEPTH = 100  # every packet matters: later ones cannot be decoded without it
_CAMERA_INFO_DEPTH = 10  # enough for the camera_info of a frame in inference
_IMAGE_TYPES: dict[str, type] = {"raw": Image, "compressed": CompressedImage}


@dataclass
class FrameIntake:
    """Admission of frames, shared by all cameras of a node.

    Attributes:
        max_rate_hz: returns the current limit of frames per second and camera; 0: none.
        slots: replaced whenever an engine starts; closed slots refuse frames.
        enabled: False while the node is paused.
    """

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
        temporal_filter, share_filter, ood_monitor: of the masks; restarted with each model.
        subscribed_since_s: on ``time.monotonic``'s clock; None while not subscribed.
        qos_problem: a publisher of the images is incompatible with the subscription; empty: none was found.
        camera_info_problem: a camera_info that a subscriber needs is missing or outdated; empty: neither.
        watch: of the topics in the ROS graph.
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
        self.image_topic = node.resolve_topic_name(transported_topic(topics.image, transport))
        self.transform = CameraTransform()
        self.restart_filters({})
        self.statistics = Statistics()
        self.subscribed_since_s: float | None = None
        self.qos_problem = self.camera_info_problem = ""
        self._camera_info_topic = topics.camera_info
        self._camera_info_latched = False
        self._infos = CameraInfoBuffer()
        self._message_type = _IMAGE_TYPES.get(transport) or video_message_type(transport)
        self._video: VideoInput | None = None
        self._losses_counted = True
        self._rate_limit = RateLimit()
        self._subscriptions: list[Any] = []
        self._node = node
        self._intake = intake
        self._faults = faults
        self.clouds = CloudInput(node, cloud, self._report_qos) if cloud else None
        self.outputs = CameraOutputs(
            node,
            topics.results,
            results_before_remapping,
            self.statistics,
            self._report_qos,
            on_fault=functools.partial(faults.report, self.name),
            clouds=self.clouds,
            ground=ground,
        )
        self.watch = CameraWatch(node, self, transport)

    def snapshot(self) -> CameraSnapshot:
        """State for diagnostics."""
        pending_since_s = self.statistics.pending_since_s
        waits = self.subscribed_since_s is not None and pending_since_s is not None
        return CameraSnapshot(
            name=self.name,
            image_topic=self.image_topic,
            publishers=self._node.count_publishers(self.image_topic),
            statistics=self.statistics,
            silent_s=self.silent_s(),
            without_result_s=time.monotonic() - (pending_since_s or 0.0) if waits else None,
            topic_problem=self.watch.topic_problem,
            rivals=self.watch.rivals,
            out_of_distribution=self.ood_monitor.problem(),
            confidences=self.ood_monitor.values(),
            camera_info_problem=self.camera_info_problem,
            camera_info_latched=self._camera_info_latched,
            losses_counted=self._losses_counted,
        )

    def silent_s(self) -> float | None:
        """Seconds since the last image, or since the subscription; None while not subscribed."""
        if self.subscribed_since_s is None:
            return None
        return time.monotonic() - max(self.subscribed_since_s, self.statistics.last_received_s or 0.0)

    def restart_filters(self, familiar: Mapping[str, Range]) -> None:
        """Restart what follows the sequence of masks, for a model with these in-distribution ranges."""
        self.ood_monitor, self.temporal_filter = OodMonitor(familiar), TemporalFilter()
        self.share_filter = ShareFilter()

    # Subscriptions

    def follow_subscribers(self) -> None:
        """Subscribe to the camera while its results have subscribers."""
        wanted = self.outputs.wanted()
        if self.clouds is not None:
            self.clouds.follow(bool(self.outputs.clouds_in(wanted)))
        if not wanted:
            self.unsubscribe()
        elif self.subscribed_since_s is None:
            self.statistics.resume()
            self.subscribe()

    def subscribe(self) -> None:
        self.subscribed_since_s, self.qos_problem = time.monotonic(), ""
        is_video = self._message_type not in _IMAGE_TYPES.values()
        if is_video:
            self._video = VideoInput(self._admit, self.statistics)
        image_subscription = qos.create_subscription(
            self._node,
            self._message_type,
            self.image_topic,
            self._on_numbered_message if GIVES_MESSAGE_INFO else self._on_message,
            _VIDEO_DEPTH if is_video else _IMAGE_DEPTH,
            self._report_image_qos,
            on_lost=self.statistics.lose,
        )
        self._subscriptions = [image_subscription, self._camera_info_subscription()]

    def unsubscribe(self) -> None:
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())
        self.subscribed_since_s = None
        if self._video is not None:
            self._video.stop()
            self._video = None

    def check_graph(self, stale_after_s: float) -> None:
        """Check who publishes the camera's topics; receive a latched camera_info by the durability of its publisher."""
        self.watch.check(stale_after_s)
        if self._subscriptions and self._is_latched() != self._camera_info_latched:
            self._node.destroy_subscription(self._subscriptions.pop())
            self._subscriptions.append(self._camera_info_subscription())

    def destroy(self) -> None:
        self.unsubscribe()
        if self.clouds is not None:
            self.clouds.destroy()
        self.outputs.destroy()

    def _is_latched(self) -> bool:
        return qos.is_latched(self._node.get_publishers_info_by_topic(self._camera_info_topic))

    def _camera_info_subscription(self) -> Any:
        self._camera_info_latched = latched = self._is_latched()
        return qos.create_subscription(
            self._node,
            CameraInfo,
            self._camera_info_topic,
            self._infos.put,
            _CAMERA_INFO_DEPTH,
            self._report_qos,
            latched,
        )

    def _report_image_qos(self, problem: str) -> None:
        self.qos_problem = problem
        self._report_qos(problem)

    def _report_qos(self, problem: str) -> None:
        self.statistics.count("qos_problems")
        self._faults.remember(self.name, Fault.QOS_INCOMPATIBLE, problem)
        self._node.get_logger().error(f"{self.name}: {problem}")

    # Frames

    def _on_numbered_message(self, message: Any, info: Any) -> None:
        lost = 0
        number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is not None:
            # Without a publisher id (rclpy of Jazzy), numbers of several publishers cannot be told apart.
            if publisher is not None or self._node.count_publishers(self.image_topic) == 1:
                lost = self.statistics.number(publisher["data"] if publisher else b"", number)
        elif self._losses_counted:
            self._losses_counted = False
            self._faults.advise(
                "node",
                Fault.LOSSES_UNKNOWN,
                f"{get_rmw_implementation_identifier()} does not number messages: lost images cannot be counted; "
                "missing_by_stamp on /diagnostics estimates them from the stamps",
            )
        self._on_message(message, lost)

    def _on_message(self, message: Any, lost: int = 0) -> None:
        if self._video is None:
            self.statistics.receive(message.header.stamp, self._intake.now_ns())
            self._admit(message)
        else:
            packet = VideoPacket.of(message)
            self.statistics.receive(packet.stamp, self._intake.now_ns())
            self._video.put(packet, after_loss=lost > 0)

    def _admit(self, message: Any) -> None:
        """Put a frame into the camera's slot, unless the node is paused or the rate limit is reached."""
        received_s, intake = time.monotonic(), self._intake
        if isinstance(message, VideoMessage) and message.frame.problem:
            report = self._faults.remember if message.frame.starting else self._faults.report
            report(self.name, Fault.IMAGE_REFUSED, message.frame.problem)
            self.drop(message.header, "bad")
            return
        if not intake.enabled:
            self.drop(message.header, "paused")
            return
        result = intake.slots.put(
            self.name,
            ReceivedFrame(message, received_s),
            admits=lambda: self._rate_limit.allows(received_s, intake.max_rate_hz()),
        )
        if result is PutResult.REPLACED_OLDER:
            self.drop(message.header, "replaced")
        elif result is PutResult.REFUSED:
            self.drop(message.header, "over_rate")

    def drop(self, header: Any, reason: str, stages_ms: Mapping[str, float] = MappingProxyType({})) -> None:
        """Count and log a dropped frame; ``reason`` is one of ``statistics.DROPS``."""
        self.statistics.count(reason)
        self.log_frame(header, f"dropped: {reason}", stages_ms)

    def log_frame(self, header: Any, outcome: str, stages_ms: Mapping[str, float]) -> None:
        """Log a frame with its durations by stage, at level debug."""
        logger = self._node.get_logger()
        if logger.is_enabled_for(LoggingSeverity.DEBUG):
            times = ", ".join(f"{stage} {duration_ms:.1f}" for stage, duration_ms in stages_ms.items())
            stamp_s = nanoseconds(header.stamp) / 1e9
            logger.debug(f"{self.name} {stamp_s:.3f}: {outcome} ({times or '-'} ms)")

    def pixels(self, message: Any, max_pixels: int) -> NDArray[np.uint8]:
        """Pixels of the message, (H, W, 3) BGR or (H, W) grey uint8.

        Raises:
            ImageMessageError: the message cannot be decoded, or has more than ``max_pixels``.
        """
        if isinstance(message, VideoMessage):
            return message.frame.pixels(max_pixels)
        convert = decode_compressed if self._message_type is CompressedImage else decode_image
        return convert(message, max_pixels)

    def camera_info(self, stamp: Any, wanted: frozenset[str]) -> Any | None:
        """The camera_info for an image of this stamp; None: none received. Updates ``camera_info_problem``."""
        info, since_s = self._infos.match(stamp), self.subscribed_since_s
        needing = self.outputs.needing_camera_info(wanted)
        if since_s is None or not needing:
            self.camera_info_problem = ""
        elif time.monotonic() - since_s > _CAMERA_INFO_GRACE_S:
            names = ", ".join(sorted(needing))
            self.camera_info_problem = (
                f"no camera_info received on {self._camera_info_topic}: without it, {names} cannot be published"
                if info is None
                else outdated_problem(nanoseconds(info.header.stamp), nanoseconds(stamp))
            )
        if self.camera_info_problem:
            kind = Fault.CAMERA_INFO_MISSING if info is None else Fault.CAMERA_INFO_OUTDATED
            self._faults.advise(self.name, kind, self.camera_info_problem)
            if info is None:
                self._faults.remember(self.name, kind, self.camera_info_problem)
        return info
