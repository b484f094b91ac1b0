# SPDX-License-Identifier: Apache-2.0
"""Recorder process of ``canet demo``: subscribes to camera and node, and writes images and metrics.

``canet demo`` starts it as ``python -m canet_ros.demo.recorder``; it ends after the camera.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from tqdm import tqdm

from canet_ros.demo.live_view import LiveView
from canet_ros.demo.results import SUMMARY_FILE, Recording, summarize, write_images
from canet_ros.files import write_json
from canet_ros.hints import canet_command
from canet_ros.messages.images import decode_image
from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import load_spec
from canet_ros.ros.initialization import init_ros
from canet_ros.ros.statistics import nanoseconds

NODE_TIMEOUT_S = 60.0  # without diagnostics; loading a model may take minutes
CAMERA_TIMEOUT_S = 60.0
LAST_MASK_TIMEOUT_S = 10.0
TOPICS = {
    "image": "image_raw",
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
        view: shows the overlays live.
    """

    def __init__(
        self, camera: str, node_name: str, classes: ClassTable, view: LiveView | None = None
    ) -> None:
        super().__init__("canet_recorder")
        self._view = view
        self.recording = Recording(classes)
        self._camera = camera
        self._node_name = node_name
        self._heard_s = time.monotonic()  # of the node, last
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
        self.create_subscription(CameraInfo, f"{self._camera}/camera_info", self._on_camera_info, 100)
        for part, topic in TOPICS.items():
            callback = functools.partial(self._on_image, part)
            self.create_subscription(Image, f"{self._camera}/{topic}", callback, 10)
        published_ns = self.recording.published_ns
        self._spin_until(lambda: bool(published_ns), CAMERA_TIMEOUT_S)
        if not published_ns:
            raise RuntimeError(f"no image was published within {CAMERA_TIMEOUT_S:.0f} s")
        with tqdm(
            total=frame_count or None, unit="frame", desc="segmenting", file=sys.stderr, disable=None
        ) as bar:
            while self.count_publishers(f"{self._camera}/camera_info") > 0:
                rclpy.spin_once(self, timeout_sec=0.1)
                bar.update(len(published_ns) - bar.n)
                bar.set_postfix(masks=len(self.recording.arrival_ns), refresh=False)
        self._spin_until(self.recording.is_complete, LAST_MASK_TIMEOUT_S)
        if not self.recording.arrival_ns:
            raise RuntimeError(f"the camera published {len(published_ns)} frames, but no mask arrived")

    def _wait_for_node(self) -> None:
        engine = self.recording.engine

        def is_ready_or_failed() -> bool:
            # An active node may still be loading its model.
            loaded = engine.get("lifecycle_state") == "active" and bool(engine.get("engine"))
            return loaded or bool(engine.get("last_error"))

        while not is_ready_or_failed():
            rclpy.spin_once(self, timeout_sec=0.1)
            if time.monotonic() - self._heard_s > NODE_TIMEOUT_S:
                raise RuntimeError(
                    f"no diagnostics from the segmentation node for {NODE_TIMEOUT_S:.0f} s: "
                    f"{canet_command('doctor')} checks the communication between processes"
                )
        if engine.get("last_error"):
            raise RuntimeError(f"the segmentation node failed: {engine['last_error']}")

    def _spin_until(self, condition: Any, timeout_s: float) -> None:
        limit_s = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < limit_s:
            rclpy.spin_once(self, timeout_sec=0.1)

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
        frame = decode_image(message)
        self.recording.add(part, nanoseconds(message.header.stamp), frame, now_ns)
        if part == "overlay" and self._view is not None:
            self._view.show(frame)


def main(argv: Sequence[str] | None = None) -> int:
    """Record one run; return the exit status. Errors are printed to stdout, which is the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="existing folder for images and summary.json")
    parser.add_argument("--camera", required=True, help="namespace of the camera, /street")
    parser.add_argument("--node", required=True, help="name of the segmentation node, /canet")
    parser.add_argument("--model", type=Path, required=True, help="model folder of the segmentation node")
    parser.add_argument("--frames", type=int, default=0, help="frames expected, for the progress bar")
    parser.add_argument("--source", required=True, help="where the frames come from, for the summary")
    parser.add_argument("--view", type=int, metavar="PORT", help="show overlays in a browser; 0: a free port")
    given = parser.parse_args(argv)
    view = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        init_ros([])
        classes = load_spec(given.model).classes
        if given.view is not None:
            view = LiveView(classes, given.view)
            print(f"live at {view.address}", file=sys.stderr, flush=True)
            if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
                webbrowser.open(view.address)
        recorder = Recorder(given.camera, given.node, classes, view)
        recorder.record(given.frames)
        summary = summarize(recorder.recording, given.source)
        summary["images"] = write_images(recorder.recording, summary, given.out)
        write_json(given.out / SUMMARY_FILE, summary)
    except (OSError, RuntimeError, ValueError, KeyboardInterrupt) as error:
        print(str(error) or "interrupted", flush=True)
        return 1
    finally:
        if view is not None:
            view.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
