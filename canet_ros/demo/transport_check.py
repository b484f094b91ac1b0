# SPDX-License-Identifier: Apache-2.0
"""Counts how many camera-sized images cross from one process to another over DDS.

``python -m canet_ros.demo.transport_check publish|receive`` is one of the two processes.
"""

from __future__ import annotations

import array
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from canet_ros.demo.processes import ChildProcess, stop
from canet_ros.launching.transport import unused_domain_id
from canet_ros.ros.initialization import init_ros, node_problem
from canet_ros.ros.rclpy_compat import RCLError

WIDTH, HEIGHT, RATE_HZ = 1280, 720, 30.0  # of the images, which are bgr8
COUNT = 60
# The QoS of SensorData, which image subscribers use (REP 2003).
_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
_TOPIC = "canet_transport_check"
_DISCOVERY_TIMEOUT_S = 15.0
_LINGER_S = 0.5  # a publisher that is destroyed discards what it has not sent


class TransportError(RuntimeError):
    """The check itself failed; the message gives the reason."""


@dataclass(frozen=True)
class TransportResult:
    """What arrived of ``COUNT`` images. The median latency is from publishing to the callback; NaN if none arrived."""

    received: int
    latency_ms: float

    @property
    def received_fraction(self) -> float:
        return self.received / COUNT


def check_transport(environment: Mapping[str, str]) -> TransportResult:
    """Send images from one new process to another and count what arrives.

    Args:
        environment: of both processes; ROS_DOMAIN_ID is replaced by an unused one.

    Raises:
        TransportError: a process failed, or the two did not discover each other.
    """
    variables = {**environment, "ROS_DOMAIN_ID": str(unused_domain_id())}
    limit_s = 2 * _DISCOVERY_TIMEOUT_S + 3 * COUNT / RATE_HZ
    receiver, publisher = processes = [
        ChildProcess(name, [sys.executable, "-m", __name__, role], variables)
        for name, role in (("subscriber", "receive"), ("publisher", "publish"))
    ]
    try:
        publisher.wait(limit_s)
        receiver.wait(limit_s)
    except subprocess.TimeoutExpired:
        raise TransportError(f"the transport check did not end within {limit_s:.0f} s") from None
    finally:
        stop(processes, grace_s=0)
    failures = [process.exit_message() for process in processes if process.status() != 0]
    if failures:
        raise TransportError("; ".join(failures))
    # The middleware may print too.
    result = next(line for line in reversed(receiver.output().splitlines()) if line.startswith("{"))
    return TransportResult(**json.loads(result))


def _publish() -> None:
    node = rclpy.create_node("canet_transport_check_publisher")
    publisher = node.create_publisher(Image, _TOPIC, _QOS)
    end_s = time.monotonic() + _DISCOVERY_TIMEOUT_S
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > end_s:
            raise SystemExit("publisher and subscriber did not discover each other")
        time.sleep(0.02)
    message = Image(height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH)
    message.data = array.array("B", bytes(message.step * message.height))
    start_s = time.monotonic()
    for index in range(COUNT):
        time.sleep(max(0.0, start_s + index / RATE_HZ - time.monotonic()))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
    time.sleep(_LINGER_S)


def _receive() -> None:
    node = rclpy.create_node("canet_transport_check_subscriber")
    latencies_ms: list[float] = []

    def on_image(message: Image) -> None:
        now = node.get_clock().now().to_msg()
        stamp = message.header.stamp
        latencies_ms.append((now.sec - stamp.sec) * 1e3 + (now.nanosec - stamp.nanosec) * 1e-6)

    end_s = time.monotonic() + _DISCOVERY_TIMEOUT_S
    while node.count_publishers(_TOPIC) == 0 and time.monotonic() < end_s:
        rclpy.spin_once(node, timeout_sec=0.1)
    # Not earlier: the publisher starts when it has found the subscription, and must have been found here by then.
    node.create_subscription(Image, _TOPIC, on_image, _QOS)
    while len(latencies_ms) < COUNT and node.count_publishers(_TOPIC) > 0:
        rclpy.spin_once(node, timeout_sec=0.1)
    latency_ms = float(np.median(latencies_ms)) if latencies_ms else float("nan")
    print(json.dumps({"received": len(latencies_ms), "latency_ms": latency_ms}))


def main() -> None:
    try:
        init_ros([])
        (_publish if sys.argv[1] == "publish" else _receive)()
    except RCLError as error:
        sys.exit(node_problem(error))
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
