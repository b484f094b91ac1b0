# SPDX-License-Identifier: Apache-2.0
"""Health on /diagnostics: one status per camera and one for the engine, for aggregators and for people."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.node import Node

from canet_ros.hints import see_docs
from canet_ros.inference import Segmenter
from canet_ros.ros.camera import Camera
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.parameters import NodeParameters
from canet_ros.ros.statistics import DROPS, STAGES, Statistics

# Share of a camera's images that may be lost on the way, or be no pictures, before it is worth a warning.
_TOLERATED_SHARE = 0.1

Verdict = tuple[bytes, str]


class Diagnostics:
    """Publishes ``diagnostic_msgs/DiagnosticArray`` every ``diagnostics_period`` seconds, whatever the node's state.

    A camera that is silent for longer than ``stale_after`` is in ERROR if it has never been seen, else in WARN, as it
    is when it loses images, sends what is none, or meets an incompatible QoS. The engine is in ERROR if it could not be
    had or if the last inference failed, and in WARN while the node is not active.
    """

    def __init__(
        self,
        node: Node,
        settings: NodeParameters,
        cameras: Mapping[str, Camera],
        segmenter: Callable[[], Segmenter | None],
        engine_statistics: Statistics,
        faults: FaultLog,
        steady_clock: Clock,
    ) -> None:
        self._node = node
        self._settings = settings
        self._cameras = cameras
        self._segmenter = segmenter
        self._engine_statistics = engine_statistics
        self._faults = faults
        self._clock = steady_clock
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer: Any = None
        self._period_s = 0.0
        self._name = node.get_fully_qualified_name().lstrip("/")
        self.follow_period()

    def follow_period(self) -> None:
        """Publish at the period that is set now."""
        period_s = float(self._settings.value("diagnostics_period"))
        if period_s != self._period_s:
            if self._timer is not None:
                self._node.destroy_timer(self._timer)
            self._timer = self._node.create_timer(period_s, self._publish, clock=self._clock)
            self._period_s = period_s

    def _publish(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status = [self._engine_status(), *map(self._camera_status, self._cameras.values())]
        self._publisher.publish(message)

    def _engine_status(self) -> DiagnosticStatus:
        state = self._settings.lifecycle_state
        counts = self._engine_statistics.counts()
        values: dict[str, Any] = {"lifecycle_state": state}
        segmenter = self._segmenter()
        if segmenter is not None:
            values |= {
                "model": segmenter.spec.name,
                "resolution": segmenter.resolution_text,
                "engine": segmenter.engine.name,
                "device": segmenter.engine.device,
                "precision": segmenter.engine.precision,
                "reason": segmenter.engine.reason,
                **_gpu_values(segmenter.engine.device),
            }
        values |= {"batches": counts.get("batches", 0), "frames": counts.get("frames", 0)}
        values |= {"failures": counts.get("failures", 0)}
        values |= _percentiles(self._engine_statistics, ("inference",))
        error = self._faults.last("engine")
        values["last_error"] = error or self._faults.last("inference")
        verdict: Verdict = (DiagnosticStatus.OK, "segmenting")
        if error:
            verdict = (DiagnosticStatus.ERROR, error)
        elif state != "active":
            verdict = (DiagnosticStatus.WARN, f"node is {state}")
        elif self._engine_statistics.recent("failures"):
            verdict = (DiagnosticStatus.ERROR, self._faults.last("inference"))
        return self._status("engine", str(values.get("device", "")), verdict, values)

    def _camera_status(self, camera: Camera) -> DiagnosticStatus:
        statistics = camera.statistics
        counts = statistics.counts()
        last_s = statistics.last_received_s
        values: dict[str, Any] = {
            "image_topic": camera.input.image_topic,
            "publishers": self._node.count_publishers(camera.input.image_topic),
            "subscribed": camera.input.subscribed_since_s is not None,
            "rate_in_hz": f"{statistics.rate_hz('received'):.2f}",
            "rate_out_hz": f"{statistics.rate_hz('published'):.2f}",
            "received": counts.get("received", 0),
            "published": counts.get("published", 0),
            "dropped": sum(counts.get(reason, 0) for reason in DROPS),
            **{f"dropped_{reason}": counts.get(reason, 0) for reason in DROPS},
            "lost": counts.get("lost", 0),
            "missing_by_stamp": counts.get("missing", 0),
            "not_encoded": counts.get("not_encoded", 0),
            "qos_problems": counts.get("qos_problems", 0),
            **_percentiles(statistics, STAGES),
            "last_frame_age_s": "never" if last_s is None else f"{time.monotonic() - last_s:.2f}",
            "last_error": self._faults.last(camera.name),
        }
        return self._status(camera.name, camera.name, self._camera_verdict(camera), values)

    def _camera_verdict(self, camera: Camera) -> Verdict:
        topic, statistics, silent_s = camera.input.image_topic, camera.statistics, camera.silent_s()
        unseen = DiagnosticStatus.WARN if statistics.last_received_s else DiagnosticStatus.ERROR
        if self._settings.lifecycle_state != "active":
            return DiagnosticStatus.OK, f"node is {self._settings.lifecycle_state}"
        if silent_s is None:
            if self._node.count_publishers(topic):
                return DiagnosticStatus.OK, "idle: nobody subscribes to its results"
            return unseen, f"nothing publishes {topic}"
        if statistics.recent("paused"):
            return DiagnosticStatus.OK, "paused by ~/enable"
        if statistics.recent("qos_problems"):
            return unseen, self._faults.last(camera.name)
        if silent_s > float(self._settings.value("stale_after")):
            return unseen, f"nothing has come on {topic} for {silent_s:.1f} s"
        received = statistics.recent("received")
        if statistics.recent("bad") > _TOLERATED_SHARE * received:
            return DiagnosticStatus.WARN, self._faults.last(camera.name)
        missing = max(statistics.recent("lost"), statistics.recent("missing"))
        if missing > _TOLERATED_SHARE * (received + missing):
            return (
                DiagnosticStatus.WARN,
                f"{missing} images were lost on the way, {received} came: {see_docs('transport.md')}",
            )
        if not received:
            return DiagnosticStatus.OK, "waiting for the first image"
        return DiagnosticStatus.OK, f"{statistics.rate_hz('published'):.1f} Hz"

    def _status(
        self, name: str, hardware: str, verdict: Verdict, values: Mapping[str, Any]
    ) -> DiagnosticStatus:
        level, text = verdict
        return DiagnosticStatus(
            level=level,
            name=f"{self._name}: {name}",
            message=text,
            hardware_id=hardware,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )


def _percentiles(statistics: Statistics, stages: Sequence[str]) -> dict[str, str]:
    values = {}
    for stage in stages:
        percentiles = statistics.percentiles_ms(stage)
        if percentiles is not None:
            values[f"{stage}_p50_ms"], values[f"{stage}_p95_ms"] = (f"{ms:.1f}" for ms in percentiles)
    return values


def _gpu_values(device: str) -> dict[str, str]:
    """Memory and, where NVIDIA's management library is there, temperature of a CUDA device; nothing for others."""
    if not device.startswith("cuda"):
        return {}
    import torch  # not at the top: a node on another engine never loads it

    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info(device)
    values = {
        "gpu_memory_free_mb": f"{free / 1e6:.0f}",
        "gpu_memory_total_mb": f"{total / 1e6:.0f}",
        "gpu_memory_of_torch_mb": f"{torch.cuda.memory_reserved(device) / 1e6:.0f}",
    }
    with contextlib.suppress(ImportError, RuntimeError):
        values["gpu_temperature_c"] = str(torch.cuda.temperature(device))
    return values
