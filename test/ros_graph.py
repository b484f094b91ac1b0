# SPDX-License-Identifier: Apache-2.0
"""For tests through real topics: a node of the test's own, and processes beside it, in a domain nobody else is in."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from waiting import WAIT_S, wait_until

from canet_ros.demo.processes import ChildProcess, stop
from canet_ros.launching.transport import transport_environment, unused_domain_id

# Before rclpy is initialised anywhere in the test process.
os.environ.update(transport_environment())
if "CANET_TEST_DOMAIN_ID" not in os.environ:
    os.environ["CANET_TEST_DOMAIN_ID"] = os.environ["ROS_DOMAIN_ID"] = str(unused_domain_id())

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from canet_ros.ros.image_conversion import compressed_message, image_message


class Graph:
    """A node in the test process that publishes, subscribes and calls services, spinning in a thread."""

    def __init__(self, name: str = "test") -> None:
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._entities: list[Listener | Camera] = []
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while True:
            try:
                self._executor.spin()
            except rclpy.executors.ExternalShutdownException:
                return
            except rclpy_implementation.InvalidHandle:
                continue  # the test destroyed an entity while the executor built its wait set
            return

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        self._context.try_shutdown()

    def listen(self, message_type: type, topic: str, qos: Any = 10) -> Listener:
        self._entities.append(Listener(self.node, message_type, topic, qos))
        return self._entities[-1]

    def camera(self, topic: str = "/camera/image_raw", message_type: type = Image) -> Camera:
        self._entities.append(Camera(self.node, topic, message_type))
        return self._entities[-1]

    def clear(self) -> None:
        """Close all listeners and cameras."""
        while self._entities:
            self._entities.pop().close()

    def connect(self, camera: Camera, *listeners: Listener, image: np.ndarray | None = None) -> int:
        """Send frames until a result comes to every listener: only then has everybody discovered everybody.

        Args:
            image: to send; None: a small black one.

        Returns:
            how many it took.
        """
        if image is None:
            image = np.zeros((24, 32, 3), np.uint8)
        end_s = time.monotonic() + WAIT_S
        patience_s, count = 0.5, 0
        while True:
            count += 1
            stamp = camera.send(image)
            try:
                for listener in listeners:
                    listener.wait_for_stamp(stamp, patience_s)
                return count
            except AssertionError:
                if time.monotonic() > end_s:
                    raise
                # Not yet discovered, or a machine so busy that results take longer.
                patience_s = min(1.5 * patience_s, 10.0)

    def call(self, service_type: type, name: str, request: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, name)
        assert self._clients[name].wait_for_service(timeout_sec=WAIT_S), f"no service {name}"
        future = self._clients[name].call_async(request)
        wait_until(future.done, f"an answer of {name}")
        return future.result()

    def set_parameter(self, name: str, value: Any, node: str = "/canet") -> Any:
        """The node's SetParametersResult."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, f"{node}/set_parameters", request).results[0]

    def get_parameter(self, name: str, node: str = "/canet") -> Any:
        answer = self.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=[name]))
        return Parameter.from_parameter_msg(
            rclpy.parameter.ParameterMsg(name=name, value=answer.values[0])
        ).value

    def state(self, node: str = "/canet") -> str:
        name = f"{node}/get_state"
        asked_s, answers = 0.0, []

        def answered() -> Any:
            nonlocal asked_s
            # Asked again, by a new client: the old one may wait for a node of this name that is gone, and a server
            # that has just come answers before it knows where to.
            if not answers or time.monotonic() - asked_s > 5:
                if answers:
                    self.node.destroy_client(self._clients.pop(name))
                if name not in self._clients:
                    self._clients[name] = self.node.create_client(GetState, name)
                if self._clients[name].wait_for_service(timeout_sec=WAIT_S):
                    answers.append(self._clients[name].call_async(GetState.Request()))
                asked_s = time.monotonic()
            return next((answer for answer in answers if answer.done()), None)

        return str(wait_until(answered, f"an answer of {name}").result().current_state.label)

    def change_state(self, label: str, node: str = "/canet") -> bool:
        """Ask for a transition (``configure``, ``activate``...); whether it succeeded."""
        request = ChangeState.Request(transition=Transition(label=label))
        return bool(self.call(ChangeState, f"{node}/change_state", request).success)

    def wait_for_state(self, label: str, node: str = "/canet") -> None:
        wait_until(lambda: self.state(node) == label, f"{node} to become {label}")


class Listener:
    """Collects what comes on a topic, with the time of arrival on ``time.time``'s clock."""

    def __init__(self, node: Any, message_type: type, topic: str, qos: Any) -> None:
        self.topic = topic
        self.messages: list[Any] = []
        self.arrivals_s: list[float] = []
        self._node = node
        self._subscription = node.create_subscription(message_type, topic, self._on_message, qos)

    def _on_message(self, message: Any) -> None:
        self.arrivals_s.append(time.time())
        self.messages.append(message)

    def wait_for(self, count: int, timeout_s: float = WAIT_S) -> list[Any]:
        wait_until(lambda: len(self.messages) >= count, f"{count} messages on {self.topic}", timeout_s)
        return self.messages

    def wait_for_new(self, count: int) -> None:
        """Wait for as many messages from now on; one of them may have been under way already."""
        self.wait_for(len(self.messages) + count)

    def wait_for_stamp(self, stamp: Time, timeout_s: float = WAIT_S) -> Any:
        def found() -> Any:
            return next((m for m in list(self.messages) if m.header.stamp == stamp), None)

        return wait_until(found, f"a message of stamp {stamp.sec}.{stamp.nanosec} on {self.topic}", timeout_s)

    def close(self) -> None:
        self._node.destroy_subscription(self._subscription)


class Camera:
    """A camera driver: best effort, as cameras publish."""

    def __init__(self, node: Any, topic: str, message_type: type) -> None:
        self._node = node
        self.topic = topic
        self._message_type = message_type
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publisher = node.create_publisher(message_type, topic, qos)

    def subscriber_count(self) -> int:
        return int(self._publisher.get_subscription_count())

    def wait_for_subscriber(self) -> None:
        wait_until(self.subscriber_count, f"a subscriber to {self.topic}")

    def now(self) -> Time:
        return self._node.get_clock().now().to_msg()

    def publish(self, message: Any) -> None:
        self._publisher.publish(message)

    def send(self, pixels: Any, encoding: str = "bgr8", frame_id: str = "camera") -> Time:
        """Publish pixels stamped now, as PNG if the topic is compressed; the stamp."""
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id=frame_id)
        if self._message_type is Image:
            self.publish(image_message(pixels, encoding, header))
        else:
            self.publish(compressed_message(pixels, encoding, header, "png"))
        return header.stamp

    def close(self) -> None:
        self._node.destroy_publisher(self._publisher)


class Process(ChildProcess):
    """A ROS process, with its output kept."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        variables = {
            **os.environ,
            "RCUTILS_LOGGING_BUFFERED_STREAM": "0",  # so that the log is complete when the process dies
            "OMP_NUM_THREADS": "1",  # several on a busy machine wait for each other longer than they compute
            **(environment or {}),
        }
        super().__init__("process", command, variables)

    def wait_for_output(self, text: str, timeout_s: float = WAIT_S) -> None:
        def there() -> bool:
            if text in self.output():
                return True
            assert self.status() is None or text in self.output(), (
                f"ended with {self.status()} before {text!r}:\n{self.output()}"
            )
            return False

        wait_until(there, f"output {text!r}", timeout_s)

    def close(self) -> None:
        stop([self], grace_s=60)
        print(self.output())  # which pytest shows with a failed test


def ros_arguments(parameters: dict[str, Any], name: str = "canet", namespace: str = "") -> list[str]:
    arguments = ["--ros-args", "-r", f"__node:={name}"]
    if namespace:
        arguments += ["-r", f"__ns:={namespace}"]
    for key, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        arguments += ["-p", f"{key}:={text}"]
    return arguments


@contextlib.contextmanager
def segmentation_node(
    model: Path,
    program: Sequence[str] = ("-m", "canet_ros.ros.node"),
    namespace: str = "",
    log_level: str = "info",
    **parameters: Any,
) -> Iterator[Process]:
    """The node in a process of its own, exact: engine onnxruntime, precision fp32, on the CPU."""
    exact = {"model": str(model), "engine": "onnxruntime", "precision": "fp32", "device": "cpu"}
    defaults = {"image_topics": "['/camera/image_raw']", "diagnostics_period": 0.2}
    arguments = ros_arguments({**exact, **defaults, **parameters}, namespace=namespace)
    process = Process([sys.executable, *program, *arguments, "--log-level", f"canet:={log_level}"])
    try:
        yield process
    finally:
        process.close()


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8 BGR: random blobs, in which a network of random weights finds several classes."""
    import cv2

    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def pixels_of(message: Image) -> np.ndarray:
    """Pixels of a result, without a copy."""
    channels = {"mono8": (), "bgr8": (3,), "rgb8": (3,)}[message.encoding]
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, *channels)


def health(diagnostics: Listener, name: str) -> dict[str, str]:
    """The newest values that /diagnostics holds for ``canet: <name>``, with ``level`` and ``message`` among them."""
    for array in reversed(diagnostics.messages):
        for status in array.status:
            if status.name.endswith(f"canet: {name}"):
                values = {pair.key: pair.value for pair in status.values}
                return {"level": str(status.level[0]), "message": status.message, **values}
    return {}
