# SPDX-License-Identifier: Apache-2.0
"""End-to-end measurement of the node: camera images in, masks out, over DDS."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm

from canet_ros.demo.processes import ChildProcess
from canet_ros.hints import see_docs
from canet_ros.launching.transport import transport_environment, unused_domain_id
from canet_ros.model.model_folder import Resolution
from canet_ros.opencv import resize
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.ros.image_conversion import image_message
from canet_ros.simulation import StreetDrive

CAMERAS = 4
RATE_HZ = 30.0
_STAGES = ("transport", "wait", "convert", "inference", "publish")
_FIRST_MASK_TIMEOUT_S = 180.0  # a busy machine starts a node in a minute
WARM_UP_FRAMES = 5


def measure_node(
    model: Path,
    resolution: Resolution,
    camera_size: Resolution,
    engine: str,
    precision: str,
    frames: int,
) -> dict[str, Any]:
    """Latency by stage, sustained rate, start-up time, CPU time and memory of the node, with one camera and with four.

    The engine alone is timed in this process between frames, while the node is idle.

    Raises:
        RuntimeError: a node did not start or did not respond.
    """
    os.environ.update(transport_environment())
    os.environ["ROS_DOMAIN_ID"] = str(unused_domain_id())
    size = f"{resolution[0]}x{resolution[1]}"
    scene = StreetDrive(0, *camera_size).frame(0).image
    segmenter = Segmenter.load(model, "auto", engine, precision, resolution)
    network_input = resize(scene, resolution)[None]
    parameters = {"model": str(model), "resolution": size, "engine": engine, "precision": precision}

    def engine_ms() -> float:
        start_s = time.perf_counter()
        segmenter.engine.run(network_input)
        return 1e3 * (time.perf_counter() - start_s)

    by_cameras: dict[int, dict[str, Any]] = {}
    with _Probe(CAMERAS, scene) as probe:
        for cameras, rounds in ((1, frames), (CAMERAS, max(3, frames // CAMERAS))):
            start_s = time.monotonic()
            with _running(parameters, cameras, probe) as node:
                start_up_s = time.monotonic() - start_s
                cpu_s = _cpu_s(node)
                latencies, engines = probe.latencies(cameras, rounds, engine_ms)
                figures = by_cameras[cameras] = {
                    "count": cameras,
                    "start_up_s": start_up_s,
                    "cpu_ms_per_round": 1e3 * (_cpu_s(node) - cpu_s) / (rounds + WARM_UP_FRAMES),
                    "engine_ms": _spread(engines),
                    "latency_ms": _spread(latencies),
                    "stages_ms": probe.stages(_spread(latencies)["median"]),
                    "memory_mb": _memory_mb(node),
                }
                if cameras == 1:
                    figures["sustained"] = probe.sustained(node, max(3.0, frames / RATE_HZ))
    return {
        "camera_size": f"{camera_size[0]}x{camera_size[1]}",
        "resolution": size,
        "engine": segmenter.engine.name,
        "precision": segmenter.engine.precision,
        **by_cameras[1],
        "cameras": by_cameras[CAMERAS],
    }


@contextlib.contextmanager
def _running(parameters: Mapping[str, str], cameras: int, probe: _Probe) -> Iterator[ChildProcess]:
    """Start the node and wait for a mask of each camera."""
    topics = ", ".join(f"/camera{i}/image_raw" for i in range(cameras))
    values = {**parameters, "image_topics": f"[{topics}]", "diagnostics_period": "0.5"}
    command = [sys.executable, "-m", "canet_ros.ros.node", "--ros-args"]
    command += itertools.chain.from_iterable(("-p", f"{key}:={value}") for key, value in values.items())
    with ChildProcess("node", command) as node:
        probe.wait_for_first_masks(cameras, node)
        yield node


def _spread(values_ms: Sequence[float]) -> dict[str, float]:
    median, p95 = np.percentile(values_ms, (50, 95))
    return {"median": float(median), "p95": float(p95), "min": float(min(values_ms))}


def _memory_mb(process: ChildProcess) -> float:
    """Resident memory, including shared memory."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cpu_s(process: ChildProcess) -> float:
    """User and system CPU time: fields 14 and 15 of proc_pid_stat(5)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Probe:
    """Publishes stamped images of several cameras and records when their masks arrive."""

    def __init__(self, cameras: int, image: NDArray[np.uint8]) -> None:
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self._ros = rclpy.create_node("benchmark", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._ros)
        self._message = image_message(image, "bgr8", Header(frame_id="camera"))
        self._arrived_s: dict[tuple[int, int], float] = {}  # by camera and stamp
        self._diagnostics: dict[str, str] = {}
        sensor_data = rclpy.qos.qos_profile_sensor_data
        self._cameras = []
        for i in range(cameras):
            self._cameras.append(self._ros.create_publisher(Image, f"/camera{i}/image_raw", sensor_data))
            self._ros.create_subscription(
                Image, f"/camera{i}/segmentation/mask", partial(self._on_mask, i), 2
            )
        self._ros.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def __enter__(self) -> _Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join()
        self._ros.destroy_node()
        self._context.try_shutdown()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def _on_mask(self, camera: int, message: Any) -> None:
        stamp = message.header.stamp
        self._arrived_s[camera, stamp.sec * 10**9 + stamp.nanosec] = time.time()

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if values.get("image_topic") == "/camera0/image_raw":
                self._diagnostics = values

    def _publish(self, camera: int) -> int:
        """Publish an image; return its stamp in nanoseconds."""
        stamp = self._ros.get_clock().now().to_msg()
        self._message.header.stamp = stamp
        self._cameras[camera].publish(self._message)
        return int(stamp.sec * 10**9 + stamp.nanosec)

    def wait_for_first_masks(self, cameras: int, node: ChildProcess) -> None:
        """Publish until every camera has a mask; intervals grow, so that a slow node can empty its queue."""
        end_s = time.monotonic() + _FIRST_MASK_TIMEOUT_S
        interval_s = 0.5
        while self.round_trip_ms(cameras, interval_s) is None:
            interval_s *= 1.2
            node.require_running()
            if time.monotonic() > end_s:
                raise RuntimeError(
                    f"no mask arrived within {_FIRST_MASK_TIMEOUT_S:.0f} s: {node.output()[-500:]}"
                )

    def round_trip_ms(self, cameras: int, timeout_s: float = 20.0) -> float | None:
        """Time from publishing an image per camera to the last mask; None after the timeout."""
        self._arrived_s.clear()
        wanted = [(i, self._publish(i)) for i in range(cameras)]
        end_s = time.monotonic() + timeout_s
        while not all(key in self._arrived_s for key in wanted):
            if time.monotonic() > end_s:
                return None
            time.sleep(0.0005)
        return 1e3 * max(self._arrived_s[key] for key in wanted) - wanted[0][1] / 1e6

    def latencies(
        self, cameras: int, frames: int, engine_ms: Callable[[], float]
    ) -> tuple[list[float], list[float]]:
        """Round trips alternating with runs of the engine alone; lost frames are excluded from both."""
        for _ in range(WARM_UP_FRAMES):
            self.round_trip_ms(cameras)
        latencies, engines = [], []
        for _ in tqdm(range(frames), desc=f"{cameras} cameras", disable=None):
            latency_ms = self.round_trip_ms(cameras, timeout_s=5.0)
            if latency_ms is not None:
                latencies.append(latency_ms)
                engines.append(engine_ms())
        if not latencies:
            raise RuntimeError(f"all frames were lost: {see_docs('how-to/lost-images.md')}")
        return latencies, engines

    def stages(self, latency_ms: float) -> dict[str, float]:
        """Median times per stage from the node's diagnostics; "transport out" is the rest of the latency."""
        time.sleep(1.0)
        values = self._diagnostics
        stages = {stage: float(values.get(f"{stage}_p50_ms", "nan")) for stage in _STAGES}
        return {**stages, "transport out": latency_ms - float(values.get("age_p50_ms", "nan"))}

    def sustained(self, node: ChildProcess, seconds: float) -> dict[str, float]:
        """Publish at ``RATE_HZ`` and count the masks."""
        self._arrived_s.clear()
        dropped = int(self._diagnostics.get("dropped", 0))
        cpu_s, start_s = _cpu_s(node), time.monotonic()
        published = int(seconds * RATE_HZ)
        for i in range(published):
            time.sleep(max(0.0, start_s + i / RATE_HZ - time.monotonic()))
            self._publish(0)
        elapsed_s = time.monotonic() - start_s
        busy = (_cpu_s(node) - cpu_s) / elapsed_s
        time.sleep(1.5)
        ages_ms = [1e3 * at_s - stamp / 1e6 for (_, stamp), at_s in self._arrived_s.items()]
        return {
            "rate_in_hz": published / elapsed_s,
            "rate_out_hz": len(ages_ms) / elapsed_s,
            "dropped_by_node": int(self._diagnostics.get("dropped", 0)) - dropped,
            "age_median_ms": float(np.median(ages_ms)) if ages_ms else float("nan"),
            "cores": busy,
        }
