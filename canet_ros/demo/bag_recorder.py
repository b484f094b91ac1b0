# SPDX-License-Identifier: Apache-2.0
"""Subscribes to topics when they appear and writes their serialized messages to a bag."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

import canet_ros
from canet_ros.bags.bag import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, BagError, Message
from canet_ros.bags.mcap_writer import McapWriter
from canet_ros.bags.message_types import connection as connection_of
from canet_ros.bags.metadata import about, write_metadata
from canet_ros.bags.output import writing_to
from canet_ros.bags.qos import profile
from canet_ros.ros.qos import is_latched
from canet_ros.ros.rclpy_compat import SubscriptionEventCallbacks, UnsupportedEventTypeError

_DISCOVERY_S, _FLUSH_S = 0.2, 1.0
_LATCHED_DEPTH, _DEPTH = 100, 30
_INPUT_TYPES = (IMAGE, COMPRESSED_IMAGE, CAMERA_INFO)
_RESULT_SUFFIXES = ("/mask/compressed", "/camera_info", "/label_info")
_FULL = "what was recorded so far can be read"


class RecorderNode(Node):  # type: ignore[misc]
    """Records topics as soon as they are published, into one file that can be read while it grows.

    A subscription requests QoS that all publishers of the topic offer.

    Args:
        topics: topics to record; empty: inputs and results of ``node``, and transforms.

    Attributes:
        written: what was recorded.
        lost: messages lost by the middleware, by topic.

    Raises:
        BagError: the folder exists, or cannot be written; callbacks raise it too.
    """

    def __init__(self, topics: Sequence[str], node: str, folder: Path, use_sim_time: bool = False) -> None:
        super().__init__("canet_record", parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)])
        self.lost: Counter[str] = Counter()
        self._wanted = dict.fromkeys(topics or ("/tf", "/tf_static"))
        self._node = "" if topics else node
        self._open: dict[str, Any] = {}
        self._folder = folder
        with writing_to(folder, _FULL):
            folder.mkdir(parents=True)
            self._writer = McapWriter(folder / f"{folder.name}_0.mcap")
        self.written = self._writer.written
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulation time may be paused
        self.create_timer(_DISCOVERY_S, self._discover_topics, clock=steady)
        self.create_timer(_FLUSH_S, self._flush, clock=steady)

    def missing(self) -> list[str]:
        """Topics that are not published yet, or whose type is not installed."""
        return [topic for topic in self._wanted if self._open.get(topic) is None]

    def finish(self) -> None:
        """Complete the bag."""
        about_it = about({"canet_ros.version": canet_ros.__version__}, os.environ.get("ROS_DISTRO", ""))
        with writing_to(self._folder, _FULL):
            self._writer.close(about_it)
            write_metadata(self._folder, [self.written], about_it)

    def _flush(self) -> None:
        if not self._folder.exists():  # writing to a removed file does not fail
            raise BagError(f"{self._folder} was removed: what was recorded is lost")
        with writing_to(self._folder, _FULL):
            self._writer.flush()

    def _discover_topics(self) -> None:
        if self._node:
            namespace, _, name = f"/{self._node.lstrip('/')}".rpartition("/")
            with contextlib.suppress(NodeNameNonExistentError):
                taken = self.get_subscriber_names_and_types_by_node(name, namespace or "/")
                made = self.get_publisher_names_and_types_by_node(name, namespace or "/")
                self._wanted |= {topic: None for topic, types in taken if types[0] in _INPUT_TYPES}
                self._wanted |= {topic: None for topic, _ in made if topic.endswith(_RESULT_SUFFIXES)}
        for topic in self._wanted:
            if topic not in self._open and (publishers := self.get_publishers_info_by_topic(topic)):
                self._open[topic] = self._subscribe(topic, publishers)

    def _subscribe(self, topic: str, publishers: Sequence[Any]) -> Any:
        msgtype = publishers[0].topic_type
        try:
            package, kind, name = msgtype.split("/")
            message_class = getattr(importlib.import_module(f"{package}.{kind}"), name)
        except (ImportError, AttributeError, ValueError) as error:
            self.get_logger().warning(f"{topic} is not recorded: {msgtype} is not installed here ({error})")
            return None
        reliabilities = {publisher.qos_profile.reliability for publisher in publishers}
        reliability = "RELIABLE" if reliabilities == {ReliabilityPolicy.RELIABLE} else "BEST_EFFORT"
        durability = "TRANSIENT_LOCAL" if is_latched(publishers) else "VOLATILE"
        requested = QoSProfile(
            depth=_LATCHED_DEPTH if durability == "TRANSIENT_LOCAL" else _DEPTH,
            reliability=ReliabilityPolicy[reliability],
            durability=DurabilityPolicy[durability],
        )
        stored = profile(reliability, durability, requested.depth)
        connection = connection_of(topic, msgtype, stored, os.environ.get("ROS_DISTRO", ""))

        def on_message(data: bytes) -> None:
            now_ns = self.get_clock().now().nanoseconds
            with writing_to(self._folder, _FULL):
                self._writer.write(Message(connection, now_ns, now_ns, 0, bytes(data)))

        subscribe = functools.partial(
            self.create_subscription, message_class, topic, on_message, requested, raw=True
        )
        count_lost = SubscriptionEventCallbacks(
            message_lost=lambda event: self.lost.update({topic: event.total_count_change})
        )
        try:
            return subscribe(event_callbacks=count_lost)
        except UnsupportedEventTypeError:
            return subscribe()
