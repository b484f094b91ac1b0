# SPDX-License-Identifier: Apache-2.0
"""Do camera-sized images arrive? Two processes, one topic, and a count.

``python -m canet_ros.demo.transport_check publish|receive ...`` is one of the two processes.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from canet_ros.demo.processes import ChildProcess, stop
from canet_ros.launching.transport import unused_domain_id
from canet_ros.ros.initialization import init_ros

_TOPIC = "canet_transport_check"
_DISCOVERY_LIMIT_S = 15.0
_LINGER_S = 0.5  # a publisher that leaves takes with it what is still on the way


class TransportError(RuntimeError):
    """The check itself could not run; the message says why."""


@dataclass(frozen=True)
class ImageStream:
    """What is sent: bgr8 images of a size at a rate, for a while."""

    width: int = 1280
    height: int = 720
    rate_hz: float = 30.0
    count: int = 60
    reliable: bool = False


@dataclass(frozen=True)
class TransportResult:
    """What arrived. Latency is from the publisher's call to the subscriber's callback; NaN if nothing arrived."""

    sent: int
    received: int
    latency_p50_ms: float
    latency_p95_ms: float

    @property
    def received_fraction(self) -> float:
        return self.received / self.sent


def check_transport(stream: ImageStream, environment: Mapping[str, str] | None = None) -> TransportResult:
    """Send a stream from one new process to another and count what arrives.

    Args:
        stream: what to send.
        environment: of both processes (default: this process's), but for ROS_DOMAIN_ID, which is an unused one.

    Raises:
        TransportError: a process failed, or the two did not find each other.
    """
    variables = {
        **(os.environ if environment is None else environment),
        "ROS_DOMAIN_ID": str(unused_domain_id()),
    }
    limit_s = 2 * _DISCOVERY_LIMIT_S + 3 * stream.count / stream.rate_hz
    receiver, publisher = processes = [
        ChildProcess(name, _command(role, stream), variables)
        for name, role in (("subscriber", "receive"), ("publisher", "publish"))
    ]
    try:
        end_s = time.monotonic() + limit_s
        for process in (publisher, receiver):
            process.wait(max(0.0, end_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TransportError(f"the transport check did not end within {limit_s:.0f} s") from None
    finally:
        stop(processes, grace_s=0)
    failures = [process.exit_message() for process in processes if process.status() != 0]
    if failures:
        raise TransportError("; ".join(failures))
    # The middleware may print too.
    counted = next(line for line in reversed(receiver.output().splitlines()) if line.startswith("{"))
    return TransportResult(sent=stream.count, **json.loads(counted))


def _command(role: str, stream: ImageStream) -> list[str]:
    command = [
        sys.executable,
        "-m",
        __name__,
        role,
        str(stream.width),
        str(stream.height),
        str(stream.rate_hz),
    ]
    return [*command, str(stream.count), "reliable" if stream.reliable else "best_effort"]


def _qos(stream: ImageStream) -> QoSProfile:
    # The depth of SensorData, which is what image subscribers use (REP 2003).
    policy = ReliabilityPolicy.RELIABLE if stream.reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=5, reliability=policy)


def _publish(stream: ImageStream) -> int:
    node = rclpy.create_node("canet_transport_check_publisher")
    publisher = node.create_publisher(Image, _TOPIC, _qos(stream))
    limit = time.monotonic() + _DISCOVERY_LIMIT_S
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > limit:
            return _fail("publisher and subscriber did not find each other")
        time.sleep(0.02)
    time.sleep(0.5)  # the other side may need a moment longer to know us
    message = Image(height=stream.height, width=stream.width, encoding="bgr8", step=3 * stream.width)
    message.data = array.array("B", bytes(message.step * message.height))
    start = time.monotonic()
    for index in range(stream.count):
        time.sleep(max(0.0, start + index / stream.rate_hz - time.monotonic()))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
    time.sleep(_LINGER_S)
    return 0


def _receive(stream: ImageStream) -> int:
    node = rclpy.create_node("canet_transport_check_subscriber")
    latencies_ms: list[float] = []

    def on_image(message: Image) -> None:
        now = node.get_clock().now().to_msg()
        stamp = message.header.stamp
        latencies_ms.append((now.sec - stamp.sec) * 1e3 + (now.nanosec - stamp.nanosec) * 1e-6)

    node.create_subscription(Image, _TOPIC, on_image, _qos(stream))
    limit = time.monotonic() + _DISCOVERY_LIMIT_S
    publisher_seen = False
    while len(latencies_ms) < stream.count:
        rclpy.spin_once(node, timeout_sec=0.1)
        publisher_there = node.count_publishers(_TOPIC) > 0
        if not publisher_there and (publisher_seen or time.monotonic() > limit):
            break
        publisher_seen = publisher_seen or publisher_there
    p50, p95 = np.percentile(latencies_ms, (50, 95)) if latencies_ms else (np.nan, np.nan)
    print(json.dumps({"received": len(latencies_ms), "latency_p50_ms": p50, "latency_p95_ms": p95}))
    return 0


def _fail(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """One process of the check; the exit status is the return value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("publish", "receive"))
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    parser.add_argument("rate_hz", type=float)
    parser.add_argument("count", type=int)
    parser.add_argument("reliability", choices=("best_effort", "reliable"))
    given = parser.parse_args(argv)
    stream = ImageStream(
        given.width, given.height, given.rate_hz, given.count, given.reliability == "reliable"
    )
    try:
        init_ros([])
        return _publish(stream) if given.role == "publish" else _receive(stream)
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
