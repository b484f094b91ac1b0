# SPDX-License-Identifier: Apache-2.0
"""Recorder of ``canet demo``: subscribes to camera and node, and collects what arrives until the camera ends."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from tqdm import tqdm

from canet_ros.demo.live_view import LiveView
from canet_ros.demo.results import Recording
from canet_ros.hints import canet_command
from canet_ros.messages.images import decode_image
from canet_ros.model.class_table import ClassTable
from canet_ros.ros.statistics import nanoseconds

NODE_TIMEOUT_S = 60.0  # without diagnostics; loading a model may take minutes
CAMERA_TIMEOUT_S = 60.0
LAST_MASK_TIMEOUT_S = 10.0
TOPICS = {
    "labels": "truth",
    "mask": "segmentation/mask",
    "overlay": "segmentation/overlay",
}


class Recorder(Node):  # type: ignore[misc]
    """Records the topics of a camera and of its segmentation.

    Args:
        camera: namespace of the camera.
        node_name: fully qualified name of the segmentation node.
        classes: of its model.
        require_running: called while it waits; raises if a process has failed.
        view: shows the overlays live.
    """

    def __init__(
        self,
        camera: str,
        node_name: str,
        classes: ClassTable,
        require_running: Callable[[], None],
        view: LiveView | None = None,
    ) -> None:
        super().__init__("canet_recorder")
        self._view = view
        self.recording = Recording(classes)
        self._camera = camera
        self._node_name = node_name
        self._heard_s = time.monotonic()  # of the node, last
        self._require_running = require_running
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def record(self, frame_count: int) -> None:
        """Record until the camera has ended and the results of its last frame have arrived.

        Args:
            frame_count: expected frames, for the progress bar; 0: unknown.

        Raises:
            RuntimeError: the node failed, or no image or no mask arrived.
        """
        self._wait_for_node()
        # Not earlier: the node subscribes to the camera once it has a subscriber, and the camera waits for that.
        # camera_info is small and reliable; it counts frames whose image is lost too.
        info_topic = f"{self._camera}/camera_info"
        self.create_subscription(CameraInfo, info_topic, self._on_camera_info, 100)
        for part, topic in TOPICS.items():
            self._subscribe(part, topic)
        # DDS finds both sides at different times: the camera starts when it has found the last subscription, which
        # must not be made before the camera has been found here, or its first frames are missed.
        end_s = time.monotonic() + CAMERA_TIMEOUT_S
        self._spin_until(lambda: self.count_publishers(info_topic) > 0, end_s)
        self._subscribe("image", "image_raw")
        published_ns = self.recording.published_ns
        self._spin_until(lambda: bool(published_ns), end_s)
        if not published_ns:
            raise RuntimeError(f"no image was published within {CAMERA_TIMEOUT_S:.0f} s")
        with tqdm(
            total=frame_count or None, unit="frame", desc="segmenting", file=sys.stderr, disable=None
        ) as bar:
            while self.count_publishers(info_topic) > 0:
                self._spin_once()
                bar.update(len(published_ns) - bar.n)
                bar.set_postfix(masks=len(self.recording.arrival_ns), refresh=False)
        self._spin_until(self.recording.is_complete, time.monotonic() + LAST_MASK_TIMEOUT_S)
        if not self.recording.arrival_ns:
            raise RuntimeError(f"the camera published {len(published_ns)} frames, but no mask arrived")

    def _subscribe(self, part: str, topic: str) -> None:
        callback = functools.partial(self._on_image, part)
        self.create_subscription(Image, f"{self._camera}/{topic}", callback, 10)

    def _wait_for_node(self) -> None:
        engine = self.recording.engine

        def is_ready_or_failed() -> bool:
            # An active node may still be loading its model.
            loaded = engine.get("lifecycle_state") == "active" and bool(engine.get("engine"))
            return loaded or bool(engine.get("last_error"))

        while not is_ready_or_failed():
            self._spin_once()
            if time.monotonic() - self._heard_s > NODE_TIMEOUT_S:
                raise RuntimeError(
                    f"no diagnostics from the segmentation node for {NODE_TIMEOUT_S:.0f} s: "
                    f"{canet_command('doctor')} checks the communication between processes"
                )
        if engine.get("last_error"):
            raise RuntimeError(f"the segmentation node failed: {engine['last_error']}")

    def _spin_until(self, condition: Callable[[], bool], end_s: float) -> None:
        while not condition() and time.monotonic() < end_s:
            self._spin_once()

    def _spin_once(self) -> None:
        rclpy.spin_once(self, timeout_sec=0.1)
        self._require_running()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{self._node_name.lstrip('/')}: engine":
                self._heard_s = time.monotonic()
                self.recording.engine.update({entry.key: entry.value for entry in status.values})

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.recording.published_ns.append(nanoseconds(message.header.stamp))
        self.recording.camera_size = (message.width, message.height)

    def _on_image(self, part: str, message: Image) -> None:
        now_ns = self.get_clock().now().nanoseconds
        image = decode_image(message)
        self.recording.add(part, nanoseconds(message.header.stamp), image, now_ns)
        if part == "overlay" and self._view is not None:
            self._view.show(image)
