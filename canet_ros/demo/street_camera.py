# SPDX-License-Identifier: Apache-2.0
"""Camera node without a camera: publishes synthetic street scenes with ground truth, or the user's images."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from canet_ros.demo.frame_sources import input_images
from canet_ros.demo.prefetch import prefetch
from canet_ros.launching.ending import ending_signals
from canet_ros.launching.parameter_spec import ParameterSpec
from canet_ros.ros.image_conversion import image_message
from canet_ros.ros.initialization import init_ros, node_problem
from canet_ros.ros.rclpy_compat import RCLError
from canet_ros.simulation import StreetDrive

Pixels = NDArray[np.uint8]
Frame = tuple[Pixels, Pixels | None]
"""Image, (H, W, 3) BGR or (H, W) grey, and its ground truth (H, W) if known."""

PREFETCHED_FRAMES = 30
SETTLING_S = 0.5  # discovery is not simultaneous on both sides
LAST_FRAME_TIMEOUT_S = 2.0
LINGER_S = 0.2  # best-effort subscribers do not acknowledge

# Reliable publishers match both kinds of subscribers: best effort (SensorData, vision nodes) and reliable (RViz).
CAMERA_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
# Kept until it is acknowledged: the recorder counts the frames by it, and may be late on a busy machine.
INFO_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


PARAMETERS = (
    ParameterSpec("seed", 0, "Seed of the synthetic drive", maximum=2**31),
    ParameterSpec("width", 640, "Width of the synthetic images, pixels", minimum=64, maximum=1920),
    ParameterSpec("height", 480, "Height of the synthetic images, pixels", minimum=48, maximum=1080),
    ParameterSpec("rate", 10.0, "Frames per second, Hz", minimum=0.01, maximum=1000.0),
    ParameterSpec("frames", 0, "Frames to publish; 0: until stopped or the input ends", maximum=2**31),
    ParameterSpec("frame_id", "street_camera_optical_frame", "Frame of all messages"),
    ParameterSpec("input", "", "Image, folder, video or rosbag2 to publish; empty: synthetic scenes"),
    ParameterSpec("wait_for_subscribers", 0, "Image subscribers before the first frame", maximum=1000),
)


class StreetCamera(Node):  # type: ignore[misc]
    """Publishes image_raw (bgr8 or mono8), camera_info and truth (mono8), with one header per frame.

    Attributes:
        finished: whether the last frame was published and acknowledged.

    Raises:
        ValueError: invalid parameter or input.
    """

    def __init__(self) -> None:
        super().__init__("street_camera")
        self._settings = SimpleNamespace(**{spec.name: self._checked(spec) for spec in PARAMETERS})
        self.finished = False
        self._calibration: NDArray[np.float64] | None = None
        self._frames = prefetch(self._source(), PREFETCHED_FRAMES, "prefetch")
        self._next_frame = next(self._frames, None)  # starts the prefetch
        if self._next_frame is None:
            raise ValueError(f"input {self._settings.input} contains no readable image")
        self._image_publisher = self.create_publisher(Image, "image_raw", CAMERA_QOS)
        if not self._settings.input:
            self._truth_publisher = self.create_publisher(Image, "truth", CAMERA_QOS)
        # Last: subscribers that have found it have found the others.
        self._info_publisher = self.create_publisher(CameraInfo, "camera_info", INFO_QOS)
        self._published = 0
        self._start_s = 0.0
        # A timer on ROS time would never fire with use_sim_time and no /clock.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1 / self._settings.rate, self._tick, clock=clock)

    def close(self) -> None:
        """Stop the prefetch thread."""
        self._frames.close()

    def _checked(self, spec: ParameterSpec) -> Any:
        # Not checked by rclpy, whose static typing rejects 10 for 10.0.
        descriptor = ParameterDescriptor(description=spec.description, read_only=True, dynamic_typing=True)
        return spec.check(self.declare_parameter(spec.name, spec.default, descriptor).value)

    def _source(self) -> Iterator[Frame]:
        settings = self._settings
        if settings.input:
            images = input_images(Path(settings.input).expanduser(), self.get_logger().warning)
            return ((image, None) for image in images)
        drive = StreetDrive(settings.seed, settings.width, settings.height, settings.rate)
        self._calibration = drive.camera_matrix
        return ((frame.image, frame.labels) for frame in map(drive.frame, itertools.count()))

    def _tick(self) -> None:
        if self._next_frame is None or not self._may_start():
            return
        self._publish(*self._next_frame)
        start_s = time.monotonic()
        if self._published != self._settings.frames:
            self._next_frame = next(self._frames, None)
        if time.monotonic() - start_s > 0.5 / self._settings.rate:
            self.get_logger().warning(
                f"this machine cannot produce frames at {self._settings.rate:g} Hz: use a lower rate or size",
                throttle_duration_sec=5.0,
            )
        if self._next_frame is None or self._published == self._settings.frames:
            self._finish()

    def _may_start(self) -> bool:
        if self._published > 0 or self._settings.wait_for_subscribers == 0:
            return True
        if self._image_publisher.get_subscription_count() < self._settings.wait_for_subscribers:
            return False
        self._start_s = self._start_s or time.monotonic() + SETTLING_S
        return time.monotonic() >= self._start_s

    def _publish(self, image: Pixels, labels: Pixels | None) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._settings.frame_id)
        # First, so that it has arrived when a subscriber synchronises it with the image.
        self._info_publisher.publish(self._camera_info(header, *image.shape[:2]))
        if labels is not None:
            self._truth_publisher.publish(image_message(labels, "mono8", header))
        encoding = "bgr8" if image.ndim == 3 else "mono8"
        self._image_publisher.publish(image_message(image, encoding, header))
        self._published += 1

    def _camera_info(self, header: Header, height: int, width: int) -> CameraInfo:
        info = CameraInfo(header=header, height=height, width=width)
        if self._calibration is not None:  # K of zeros means uncalibrated
            info.distortion_model = "plumb_bob"
            info.d = [0.0] * 5
            info.k = self._calibration.ravel()
            info.r = np.eye(3).ravel()
            info.p = np.hstack([self._calibration, np.zeros((3, 1))]).ravel()
        return info

    def _finish(self) -> None:
        self.destroy_timer(self._timer)
        for publisher in (self._image_publisher, self._info_publisher):
            publisher.wait_for_all_acked(Duration(seconds=LAST_FRAME_TIMEOUT_S))
        time.sleep(LINGER_S)
        self.get_logger().info(f"published {self._published} frames")
        self.finished = True


def main(args: Sequence[str] | None = None) -> int:
    """Run the camera until its frames are published or it is stopped; return the exit status."""
    stop = threading.Event()
    camera = None
    try:
        init_ros(args)
        for number in ending_signals():
            signal.signal(number, lambda *_: stop.set())
        camera = StreetCamera()
        while not (stop.is_set() or camera.finished):
            rclpy.spin_once(camera, timeout_sec=0.1)
    except (OSError, RuntimeError, ValueError, RCLError) as error:
        text = node_problem(error) if isinstance(error, RCLError) else error
        print(f"street_camera: {text}", file=sys.stderr)
        return 1
    finally:
        if camera is not None:
            camera.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
