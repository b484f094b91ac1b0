# SPDX-License-Identifier: Apache-2.0
"""Third process of ``canet demo``: listens to camera and node, and writes what came and how fast.

``canet demo`` starts it as ``python -m canet_ros.demo.recorder``; it ends when the camera has ended.
"""

from __future__ import annotations

import argparse
import functools
import json
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
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from tqdm import tqdm

from canet_ros.demo.live_view import LiveView
from canet_ros.demo.results import SUMMARY_FILE, Recording, summarize, write_pictures
from canet_ros.files import write_text
from canet_ros.hints import canet_command
from canet_ros.messages.images import frame_from_image
from canet_ros.ros.initialization import init_ros
from canet_ros.ros.statistics import nanoseconds

NODE_TIMEOUT_S = 60.0  # loading and warming up a model
CAMERA_TIMEOUT_S = 20.0
LAST_MASK_TIMEOUT_S = 10.0
TOPICS = {
    "image": "image_raw",
    "labels": "truth",
    "mask": "segmentation/mask",
    "overlay": "segmentation/overlay",
}


class RecorderError(RuntimeError):
    """There is nothing to record; the message says why."""


class Recorder(Node):  # type: ignore[misc]
    """Records what a camera and its segmentation publish.

    Args:
        camera: namespace of the camera.
        node_name: of the segmentation node, fully qualified.
        view: where overlays are shown as they come.
    """

    def __init__(self, camera: str, node_name: str, view: LiveView | None = None) -> None:
        super().__init__("canet_recorder")
        self._view = view
        self.recording = Recording()
        self._camera = camera
        self._node_name = node_name
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def record(self, frame_count: int) -> None:
        """Listen until the camera has gone and the results of its last frame have come.

        Args:
            frame_count: frames expected, for the progress bar; 0: not known.

        Raises:
            RecorderError: the node cannot work, or no image or no mask came.
        """
        self._wait_for_node()
        # Only now: with a subscriber the node subscribes to the camera, and that is what the camera waits for.
        self._subscribe()
        published_ns = self.recording.published_ns
        self._spin_until(lambda: bool(published_ns), CAMERA_TIMEOUT_S)
        if not published_ns:
            raise RecorderError(f"no image was published within {CAMERA_TIMEOUT_S:.0f} s")
        with tqdm(
            total=frame_count or None, unit="frame", desc="segmenting", file=sys.stderr, disable=None
        ) as bar:
            while self.count_publishers(f"{self._camera}/camera_info") > 0:
                rclpy.spin_once(self, timeout_sec=0.1)
                bar.update(len(published_ns) - bar.n)
                bar.set_postfix(masks=len(self.recording.arrival_ns), refresh=False)
        self._spin_until(self.recording.is_complete, LAST_MASK_TIMEOUT_S)
        if not self.recording.arrival_ns:
            raise RecorderError(f"the camera published {len(published_ns)} frames, but no mask came")

    def _wait_for_node(self) -> None:
        engine = self.recording.engine

        def is_decided() -> bool:
            # An active node may still be loading its model.
            loaded = engine.get("lifecycle_state") == "active" and bool(engine.get("engine"))
            return loaded or bool(engine.get("last_error"))

        self._spin_until(is_decided, NODE_TIMEOUT_S)
        if engine.get("last_error"):
            raise RecorderError(f"the segmentation node cannot work: {engine['last_error']}")
        if not engine:
            raise RecorderError(
                f"nothing was heard of the segmentation node for {NODE_TIMEOUT_S:.0f} s: "
                f"{canet_command('doctor')} tells whether processes find each other here"
            )
        if not is_decided():
            state = engine.get("doing") or engine["lifecycle_state"]
            raise RecorderError(f"the segmentation node was not ready within {NODE_TIMEOUT_S:.0f} s: {state}")
        client = self.create_client(GetParameters, f"{self._node_name}/get_parameters")
        answer = client.call_async(GetParameters.Request(names=["class_names", "class_colors"]))
        self._spin_until(answer.done, NODE_TIMEOUT_S)
        if not answer.done():
            raise RecorderError("the segmentation node does not tell its class names")
        names, colors = (tuple(value.string_array_value) for value in answer.result().values)
        self.recording.class_names = names
        self.recording.class_colors = tuple(tuple(bytes.fromhex(color[1:])) for color in colors)  # type: ignore[misc]

    def _subscribe(self) -> None:
        # camera_info is small and reliable: it counts the frames, also those whose image does not come.
        self.create_subscription(
            CameraInfo, f"{self._camera}/camera_info", self._on_camera_info, _reliable(100)
        )
        for part, topic in TOPICS.items():
            callback = functools.partial(self._on_picture, part)
            self.create_subscription(Image, f"{self._camera}/{topic}", callback, _reliable(10))

    def _spin_until(self, condition: Any, timeout_s: float) -> None:
        limit_s = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < limit_s:
            rclpy.spin_once(self, timeout_sec=0.1)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{self._node_name.lstrip('/')}: engine":
                self.recording.engine.update({entry.key: entry.value for entry in status.values})

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.recording.published_ns.append(nanoseconds(message.header.stamp))
        self.recording.camera_size = (message.width, message.height)

    def _on_picture(self, part: str, message: Image) -> None:
        now_ns = self.get_clock().now().nanoseconds
        frame = frame_from_image(message)
        self.recording.add(part, nanoseconds(message.header.stamp), frame, now_ns)
        if part == "overlay" and self._view is not None:
            self._view.show(frame)


def _reliable(depth: int) -> QoSProfile:
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def main(argv: Sequence[str] | None = None) -> int:
    """Record one run; the exit status is the return value, and what went wrong is printed to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="existing folder for pictures and summary.json"
    )
    parser.add_argument("--camera", required=True, help="namespace of the camera, /street")
    parser.add_argument("--node", required=True, help="name of the segmentation node, /canet")
    parser.add_argument("--frames", type=int, default=0, help="frames expected, for the progress bar")
    parser.add_argument("--source", required=True, help="where the frames come from, for the summary")
    parser.add_argument("--view", type=int, metavar="PORT", help="show overlays in a browser; 0: a free port")
    given = parser.parse_args(argv)
    view = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        init_ros([])
        if given.view is not None:
            view = LiveView(given.view)
            print(f"live at {view.address}", file=sys.stderr, flush=True)
            if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
                webbrowser.open(view.address)
        recorder = Recorder(given.camera, given.node, view)
        recorder.record(given.frames)
        summary = summarize(recorder.recording, given.source)
        summary["pictures"] = write_pictures(recorder.recording, summary, given.out)
        text = json.dumps(summary, indent=2) + "\n"
        write_text(given.out / SUMMARY_FILE, text)
    except (OSError, RuntimeError, ValueError) as error:
        try:
            print(error, flush=True)
        except OSError:  # the log is on the disk that is full; this is for the user's eyes
            print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped before the end")
        return 1
    finally:
        if view is not None:
            view.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
