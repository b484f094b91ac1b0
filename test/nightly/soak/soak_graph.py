# SPDX-License-Identifier: Apache-2.0
"""The other side of the node in a long run: cameras, subscribers to its results, and what these see."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from canet_ros.messages.images import decode_image
from canet_ros.model.class_table import UNLABELLED
from canet_ros.opencv import Pixels
from canet_ros.ros.image_conversion import image_message
from canet_ros.ros.statistics import nanoseconds

AGREEMENT = 0.999  # share of a mask's pixels: engines may round otherwise in batches of another size
_REMEMBERED = 2000  # images whose masks may still come
_SERVICE_TIMEOUT_S = 20.0

Say = Callable[[str], None]


@dataclass
class Seen:
    """What was counted since the last time it was asked.

    Attributes:
        sent: whole images; those that are broken on purpose are not among them.
        masks: that came.
        wrong: masks that are not those of their images.
        least_agreement: of a mask with the first of the same image, share of the pixels.
        latency_ms: from sending an image to its mask's arrival.
    """

    sent: int = 0
    masks: int = 0
    wrong: int = 0
    least_agreement: float = 1.0
    latency_ms: list[float] = field(default_factory=list)


class SoakGraph:
    """Cameras and subscribers in this process. Nothing happens in threads: all that comes, comes in ``spin``.

    The first mask of each image is the reference for all that follow, of every camera.

    Args:
        node_name: fully qualified.
        image_topics: of the cameras.
        images: that the cameras send.
        on_fault: takes what must not be, in words.

    Attributes:
        thresholded: whether masks may have unlabelled pixels, which then are not compared.
        statuses: of /diagnostics by name, the newest: level, message and values.
    """

    def __init__(
        self, node_name: str, image_topics: Sequence[str], pictures: Sequence[Pixels], on_fault: Say
    ) -> None:
        self.thresholded = False
        self.statuses: dict[str, tuple[int, str, Mapping[str, str]]] = {}
        self.diagnostics_s = time.monotonic()
        self.longest_without_diagnostics_s = 0.0
        self._image_topics = image_topics
        self._pictures = pictures
        self._fault = on_fault
        self._references: dict[int, NDArray[np.uint8]] = {}
        self._sent: dict[tuple[int, int], tuple[int, float]] = {}
        self._seen, self._seen_since_start = [Seen(), Seen()], Seen()
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node("canet_soak", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._publishers: dict[int, Any] = {}
        self._subscriptions: list[Any] = []
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._name = node_name.lstrip("/")
        self._change_state = self._node.create_client(ChangeState, f"{node_name}/change_state")
        self._set_parameters = self._node.create_client(SetParameters, f"{node_name}/set_parameters")
        self._enable = self._node.create_client(SetBool, f"{node_name}/enable")
        for camera in range(len(image_topics)):
            self.connect(camera)

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def spin(self, seconds: float) -> None:
        """Take what comes for so long."""
        limit_s = time.monotonic() + seconds
        while (left_s := limit_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    # Cameras

    def connect(self, camera: int) -> None:
        """Plug a camera in."""
        if camera not in self._publishers:
            topic = self._image_topics[camera]
            self._publishers[camera] = self._node.create_publisher(Image, topic, qos_profile_sensor_data)

    def disconnect(self, camera: int) -> None:
        """Unplug a camera."""
        self._node.destroy_publisher(self._publishers.pop(camera))

    def send(self, camera: int, picture: int, jump_s: float = 0.0) -> tuple[int, int] | None:
        """Publish an image; the key under which ``pending`` knows it, None for a camera that is unplugged.

        Args:
            jump_s: what is added to its stamp; minus infinity: it is not stamped.
        """
        if camera not in self._publishers:
            return None
        message = self._message(self._pictures[picture], camera, jump_s)
        key = (camera, nanoseconds(message.header.stamp))
        while len(self._sent) >= _REMEMBERED:
            self._sent.pop(next(iter(self._sent)))
        self._sent[key] = (picture, time.monotonic())
        for seen in (*self._seen, self._seen_since_start):
            seen.sent += 1
        self._publishers[camera].publish(message)
        return key

    def send_broken(self, camera: int, spoil: Callable[[Any], None]) -> None:
        """Publish a message that ``spoil`` has made to no image; no mask may come of it."""
        if camera in self._publishers:
            message = self._message(self._pictures[0], camera, 0.0)
            spoil(message)
            self._publishers[camera].publish(message)

    def pending(self, key: tuple[int, int]) -> bool:
        """Whether its mask has not come."""
        return key in self._sent

    def _message(self, picture: Pixels, camera: int, jump_s: float) -> Any:
        header = Header(frame_id=_frame_id(camera))
        if jump_s != float("-inf"):
            header.stamp = rclpy.time.Time(
                nanoseconds=time.time_ns() + round(jump_s * 1e9), clock_type=rclpy.clock.ClockType.ROS_TIME
            ).to_msg()
        return image_message(picture, "bgr8" if picture.ndim == 3 else "mono8", header)

    # Subscribers

    def listen(self, outputs: Sequence[str]) -> None:
        """Subscribe to these results of every camera and to nothing else; masks are compared."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        for camera, topic in enumerate(self._image_topics):
            for output in outputs:
                name = f"{topic.rpartition('/')[0]}/segmentation/{output}"
                kind = CompressedImage if output.endswith("/compressed") else Image
                callback = self._comparing(camera) if output == "mask" else _ignore
                self._subscriptions.append(self._node.create_subscription(kind, name, callback, 5))

    def counted(self, whose: int) -> Seen:
        """What was seen since it was asked last; 0 and 1 ask independently of each other."""
        seen, self._seen[whose] = self._seen[whose], Seen()
        return seen

    @property
    def seen(self) -> Seen:
        """What was seen since the start; its latencies are left out."""
        return self._seen_since_start

    def _comparing(self, camera: int) -> Callable[[Any], None]:
        def on_mask(message: Any) -> None:
            found = self._sent.pop((camera, nanoseconds(message.header.stamp)), None)
            if found is None:
                self._wrong("a mask came twice, of a broken image, or with the stamp of none", 0.0)
                return
            picture, sent_s = found
            for seen in (*self._seen, self._seen_since_start):
                seen.masks += 1
            for seen in self._seen:
                seen.latency_ms.append((time.monotonic() - sent_s) * 1e3)
            if message.header.frame_id != _frame_id(camera):
                self._wrong(f"a mask has the frame_id {message.header.frame_id!r}", 0.0)
                return
            self._compare(picture, decode_image(message))

        return on_mask

    def _compare(self, picture: int, mask: NDArray[np.uint8]) -> None:
        size = self._pictures[picture].shape[:2]
        if mask.shape != size:
            self._wrong(f"a mask is {mask.shape} where its image is {size}", 0.0)
            return
        if picture not in self._references and not self.thresholded:
            self._references[picture] = mask.copy()
            return
        same = mask == self._references[picture]
        if self.thresholded:
            same |= mask == UNLABELLED
        agreement = float(same.mean())
        if agreement < AGREEMENT:
            self._wrong(f"a mask agrees with the first of its image in {100 * agreement:.2f} %", agreement)
        for seen in (*self._seen, self._seen_since_start):
            seen.least_agreement = min(seen.least_agreement, agreement)

    def _wrong(self, fault: str, agreement: float) -> None:
        for seen in (*self._seen, self._seen_since_start):
            seen.wrong += 1
            seen.least_agreement = min(seen.least_agreement, agreement)
        self._fault(fault)

    def _on_diagnostics(self, message: Any) -> None:
        now_s = time.monotonic()
        self.longest_without_diagnostics_s = max(
            self.longest_without_diagnostics_s, now_s - self.diagnostics_s
        )
        self.diagnostics_s = now_s
        self.statuses = {
            status.name.removeprefix(f"{self._name}: "): (
                status.level[0],
                status.message,
                {pair.key: pair.value for pair in status.values},
            )
            for status in message.status
        }

    # The node's services

    def transition(self, label: str) -> None:
        """``configure``, ``activate``, ``deactivate`` or ``cleanup``."""
        answer = self._call(self._change_state, ChangeState.Request(transition=Transition(label=label)))
        if answer is not None and not answer.success:
            self._fault(f"{label} failed")

    def set_parameters(self, values: Mapping[str, Any], accepted: bool = True) -> None:
        """Set parameters; a fault if they are refused, or else than ``accepted`` says."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answer = self._call(self._set_parameters, SetParameters.Request(parameters=parameters))
        if answer is not None and any(result.successful is not accepted for result in answer.results):
            self._fault(f"{dict(values)} was {'refused' if accepted else 'accepted'}")

    def enable(self, enabled: bool) -> None:
        """Call ``~/enable``."""
        self._call(self._enable, SetBool.Request(data=enabled))

    def _call(self, client: Any, request: Any) -> Any | None:
        limit_s = time.monotonic() + _SERVICE_TIMEOUT_S
        while not client.service_is_ready() and time.monotonic() < limit_s:
            self.spin(0.05)
        future = client.call_async(request)
        while not future.done() and time.monotonic() < limit_s:
            self._executor.spin_once(timeout_sec=0.05)
        if not future.done():
            self._fault(f"{client.srv_name} did not answer within {_SERVICE_TIMEOUT_S:.0f} s")
            return None
        return future.result()


def _frame_id(camera: int) -> str:
    return f"soak_camera_{camera}"


def _ignore(message: Any) -> None:
    """A subscriber that is only there to be served."""
