# SPDX-License-Identifier: Apache-2.0
"""Subscriptions of one camera."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from canet_ros.launching.camera_topics import CameraTopics, transported_topic
from canet_ros.messages.camera_info import CameraInfoBuffer
from canet_ros.messages.images import decode_compressed, decode_image
from canet_ros.messages.video import VideoPacket
from canet_ros.ros import qos
from canet_ros.ros.rclpy_compat import GIVES_MESSAGE_INFO, UnsupportedEventTypeError
from canet_ros.ros.statistics import Statistics
from canet_ros.ros.video_input import VideoInput, VideoMessage, video_message_type


class CameraInput:
    """Subscriptions of one camera: image and camera_info.

    Args:
        transport: one of ``names.TRANSPORTS``.
        statistics: counts the images that the middleware lost.
        on_received: called with the stamp of each message.
        on_image: called with each message, or with a ``VideoMessage`` for it from another thread.
        on_qos_problem: called with a description of incompatible QoS.
        on_unnumbered: called once if the middleware does not number messages.

    Attributes:
        subscribed_since_s: on ``time.monotonic``'s clock; None while not subscribed.
        numbered: whether the middleware numbers messages, so that lost images can be counted.
        camera_info_latched: whether the subscription to camera_info is transient local.
    """

    def __init__(
        self,
        node: Node,
        topics: CameraTopics,
        transport: str,
        statistics: Statistics,
        on_received: Callable[[Any], None],
        on_image: Callable[[Any], None],
        on_qos_problem: Callable[[str], None],
        on_unnumbered: Callable[[], None],
    ) -> None:
        self.image_topic = node.resolve_topic_name(transported_topic(topics.image, transport))
        self.infos = CameraInfoBuffer()
        self.subscribed_since_s: float | None = None
        self._node = node
        self.camera_info_topic = topics.camera_info
        self.camera_info_latched = False
        self.numbered = True
        message_types: dict[str, type] = {"raw": Image, "compressed": CompressedImage}
        self._is_video = transport not in message_types
        self._message_type = message_types.get(transport) or video_message_type(transport)
        self._video: VideoInput | None = None
        self._on_received = on_received
        self._on_image = on_image
        self._on_qos_problem = on_qos_problem
        self._statistics = statistics
        self._on_unnumbered = on_unnumbered
        self._subscriptions: list[Any] = []

    def subscribe(self) -> None:
        if self.subscribed_since_s is not None:
            return
        self.subscribed_since_s = time.monotonic()
        if self._is_video:
            self._video = VideoInput(self._on_image, self._statistics)
        self._subscriptions = [
            self._subscription(
                self._message_type,
                self.image_topic,
                self._on_numbered_message if GIVES_MESSAGE_INFO else self._on_message,
                qos.video_qos if self._is_video else qos.camera_qos,
                self._statistics.lose,
            ),
            self._camera_info_subscription(),
        ]

    def unsubscribe(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self.subscribed_since_s = None
        if self._video is not None:
            self._video.stop()
            self._video = None

    def follow_camera_info(self) -> None:
        """Match the durability of camera_info's publisher, so that a latched message is received; queries the graph."""
        if not self._subscriptions:
            return
        if self._latched() != self.camera_info_latched:
            self._node.destroy_subscription(self._subscriptions.pop())
            self._subscriptions.append(self._camera_info_subscription())

    def image_qos(self) -> Any | None:
        """QoS profile of the image subscription, with overrides; None while not subscribed."""
        return self._subscriptions[0].qos_profile if self._subscriptions else None

    def pixels(self, message: Any, max_pixels: int) -> NDArray[np.uint8]:
        """Pixels of the message, (H, W, 3) BGR or (H, W) grey uint8.

        Raises:
            ImageMessageError: the message cannot be decoded, or has more than ``max_pixels``.
        """
        if isinstance(message, VideoMessage):
            return message.frame.pixels(max_pixels)
        convert = decode_compressed if self._message_type is CompressedImage else decode_image
        return convert(message, max_pixels)

    def _on_message(self, message: Any, lost: int = 0) -> None:
        if self._video is None:
            self._on_received(message.header.stamp)
            self._on_image(message)
        else:
            packet = VideoPacket.of(message)
            self._on_received(packet.stamp)
            self._video.put(packet, after_loss=lost > 0)

    def _on_numbered_message(self, message: Any, info: Any) -> None:
        lost = 0
        number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is not None:
            # Without a publisher id (rclpy of Jazzy), numbers of several publishers cannot be told apart.
            unambiguous = publisher is not None or self._node.count_publishers(self.image_topic) == 1
            if unambiguous:
                lost = self._statistics.number(publisher["data"] if publisher else b"", number)
        elif self.numbered:
            self.numbered = False
            self._on_unnumbered()
        self._on_message(message, lost)

    def _latched(self) -> bool:
        return qos.is_latched(self._node.get_publishers_info_by_topic(self.camera_info_topic))

    def _camera_info_subscription(self) -> Any:
        self.camera_info_latched = self._latched()
        profile = qos.latched_camera_info_qos if self.camera_info_latched else qos.camera_info_qos
        return self._subscription(CameraInfo, self.camera_info_topic, self.infos.put, profile, None)

    def _subscription(
        self,
        message_type: Any,
        topic: str,
        callback: Callable[..., None],
        profile: Callable[[], Any],
        on_lost: Callable[[int], None] | None,
    ) -> Any:
        def create(on_lost: Callable[[int], None] | None) -> Any:
            return self._node.create_subscription(
                message_type,
                topic,
                callback,
                profile(),
                event_callbacks=qos.subscription_events(topic, self._on_qos_problem, on_lost),
                qos_overriding_options=qos.overrides(profile is qos.latched_camera_info_qos),
            )

        try:
            return create(on_lost)
        except UnsupportedEventTypeError:
            return create(None)
