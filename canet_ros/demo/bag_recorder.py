# SPDX-License-Identifier: Apache-2.0
"""Subscribes to topics as they come and hands their messages, serialized as they are, to a bag."""

from __future__ import annotations

import importlib
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from canet_ros.bags.bag import Connection
from canet_ros.bags.message_types import connection as connection_of
from canet_ros.bags.qos import profile
from canet_ros.bags.recording import BagRecorder
from canet_ros.ros import qos

try:
    from rclpy.event_handler import UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import UnsupportedEventTypeError

LOOK_FOR_TOPICS_S = 0.2
_LATCHED_DEPTH, _DEPTH = 100, 30
_MAX_WAITING_BYTES = 256 << 20


class RecorderNode(Node):  # type: ignore[misc]
    """Records topics from when somebody publishes them.

    A subscription asks for what all publishers of the topic offer. Messages wait for the disk in a queue; where it is
    full, they are dropped and counted.

    Attributes:
        recorded, dropped, lost: messages by topic: written; dropped here; lost by the middleware.
        unknown: topics whose type is not installed here.
    """

    def __init__(self, topics: Sequence[str], bag: BagRecorder, use_sim_time: bool = False) -> None:
        overrides = [Parameter("use_sim_time", value=True)] if use_sim_time else []
        super().__init__("canet_record", parameter_overrides=overrides)
        self.recorded: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.unknown: dict[str, str] = {}
        self.failure: Exception | None = None
        self._wanted = list(dict.fromkeys(topics))
        self._bag = bag
        self._open: dict[str, Any] = {}
        self._waiting: queue.SimpleQueue[tuple[Connection, int, bytes] | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._timer = self.create_timer(LOOK_FOR_TOPICS_S, self._look)
        self._thread = threading.Thread(target=self._write, name="bag")
        self._thread.start()

    def missing(self) -> list[str]:
        """Topics that nobody publishes yet."""
        return [topic for topic in self._wanted if topic not in self._open and topic not in self.unknown]

    def finish(self) -> None:
        """Receive nothing more and complete the bag."""
        self._timer.cancel()
        for subscription in self._open.values():
            self.destroy_subscription(subscription)
        self._waiting.put(None)
        self._thread.join()

    def _look(self) -> None:
        for topic in self.missing():
            publishers = self.get_publishers_info_by_topic(topic)
            if publishers:
                self._subscribe(topic, publishers)

    def _subscribe(self, topic: str, publishers: Sequence[Any]) -> None:
        msgtype = publishers[0].topic_type
        try:
            message_class = _message_class(msgtype)
        except (ImportError, AttributeError, ValueError) as error:
            self.unknown[topic] = msgtype
            self.get_logger().warning(f"{topic} is not recorded: {msgtype} is not installed here ({error})")
            return
        profiles = [publisher.qos_profile for publisher in publishers]
        reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles)
        latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
        depth = _LATCHED_DEPTH if latched else _DEPTH
        asked = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        words = ("reliable" if reliable else "best_effort", "transient_local" if latched else "volatile")
        connection = connection_of(topic, msgtype, profile(*words, depth), _distribution())

        def on_message(data: bytes) -> None:
            self._take(connection, data)

        def create(on_lost: Callable[[int], None] | None) -> Any:
            return self.create_subscription(
                message_class,
                topic,
                on_message,
                asked,
                raw=True,
                event_callbacks=qos.subscription_events(topic, self.get_logger().warning, on_lost),
            )

        try:
            self._open[topic] = create(lambda count: self.lost.update({topic: count}))
        except UnsupportedEventTypeError:
            self._open[topic] = create(None)

    def _take(self, connection: Connection, data: bytes) -> None:
        with self._lock:
            if self._waiting_bytes + len(data) > _MAX_WAITING_BYTES:
                self.dropped[connection.topic] += 1
                return
            self._waiting_bytes += len(data)
        self._waiting.put((connection, self.get_clock().now().nanoseconds, bytes(data)))

    def _write(self) -> None:
        try:
            while True:
                try:
                    entry = self._waiting.get(timeout=0.5)
                except queue.Empty:
                    self._bag.flush_if_due()
                    continue
                if entry is None:
                    break
                connection, log_ns, data = entry
                self._bag.write(connection, log_ns, data)
                self._bag.flush_if_due()
                self.recorded[connection.topic] += 1
                with self._lock:
                    self._waiting_bytes -= len(data)
            self._bag.close()
        except Exception as error:  # the disk's: whoever waits for the end is told
            self.failure = error


def node_cameras(
    node: Node, name: str, timeout_s: float, spin: Callable[[], None]
) -> tuple[list[str], str, str]:
    """Absolute image topics, image transport and name of the results of a running segmentation node.

    Raises:
        RuntimeError: it does not answer.
    """
    client = node.create_client(GetParameters, f"{name}/get_parameters")
    limit_s = time.monotonic() + timeout_s
    answer = None
    while time.monotonic() < limit_s:
        if answer is None and client.service_is_ready():
            answer = client.call_async(
                GetParameters.Request(names=["image_topics", "image_transport", "results_name"])
            )
        if answer is not None and answer.done():
            topics, transport, results = answer.result().values
            namespace = name.rpartition("/")[0]
            absolute = [t if t.startswith("/") else f"{namespace}/{t}" for t in topics.string_array_value]
            return absolute, str(transport.string_value), str(results.string_value)
        spin()
    raise RuntimeError(
        f"no node {name} answered within {timeout_s:g} s: start it, or name its cameras with --image-topics"
    )


def _message_class(msgtype: str) -> Any:
    package, kind, name = msgtype.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), name)


def _distribution() -> str:
    return os.environ.get("ROS_DISTRO", "")
