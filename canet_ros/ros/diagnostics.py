# SPDX-License-Identifier: Apache-2.0
"""Health on /diagnostics: one status per camera and one for the engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.duration import Duration
from rclpy.node import Node

from canet_ros.ros.camera_health import CameraSnapshot, Level, NodeSnapshot, camera_verdict
from canet_ros.ros.fault_log import ReportedFault
from canet_ros.ros.statistics import DROPS, STAGES, Statistics

CLOCK_MISSING = "/clock has no publisher: ROS time does not advance (use_sim_time is set)"


class Diagnostics:
    """Publishes ``diagnostic_msgs/DiagnosticArray`` periodically, in every state of the node.

    ``camera_verdict`` gives the level of a camera, ``engine_verdict`` that of the engine.

    Args:
        take_snapshot: returns the current state of the node.
    """

    def __init__(self, node: Node, steady_clock: Clock, take_snapshot: Callable[[], NodeSnapshot]) -> None:
        self._node = node
        self._clock = steady_clock
        self._take_snapshot = take_snapshot
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer: Any = None
        self._period_s = 0.0
        self._name = node.get_fully_qualified_name().lstrip("/")

    def follow_period(self, period_s: float) -> None:
        """Change the period of publication."""
        if period_s != self._period_s:
            if self._timer is not None:
                self._node.destroy_timer(self._timer)
            self._timer = self._node.create_timer(period_s, self.publish, clock=self._clock)
            self._period_s = period_s

    def publish(self) -> None:
        """Publish now; called by a timer and after important changes."""
        snapshot = self._take_snapshot()
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        cameras = (camera_status(camera, snapshot) for camera in snapshot.cameras)
        message.status = [engine_status(snapshot), *cameras]
        for status in message.status:
            status.name = f"{self._name}: {status.name}"
        self._publisher.publish(message)

    def publish_last(self) -> None:
        """Publish before the process ends, and wait until subscribers have the message, for three seconds at most."""
        self.publish()
        self._publisher.wait_for_all_acked(Duration(seconds=3))


def engine_status(node: NodeSnapshot) -> DiagnosticStatus:
    """Status of the engine, named ``engine``."""
    statistics, segmenter = node.engine.statistics, node.engine.segmenter
    counts = statistics.counts()
    values: dict[str, Any] = {"lifecycle_state": node.lifecycle_state}
    if segmenter is not None:
        values |= {
            "model": segmenter.spec.name,
            "resolution": segmenter.resolution_text,
            "engine": segmenter.engine.name,
            "device": segmenter.engine.device,
            "precision": segmenter.engine.precision,
            "reason": segmenter.engine.reason,
            "passed_over": "; ".join(segmenter.engine.fallback_reasons),
            "self_test": node.engine.self_test,
            **_gpu_values(segmenter.engine.device),
        }
        largest_batch, cameras = segmenter.engine.most_at_once, len(node.cameras)
        if largest_batch < cameras:
            values["pictures_at_once"] = f"{largest_batch} of {cameras}: a larger batch runs out of memory"
    values |= {name: counts.get(name, 0) for name in ("batches", "frames", "failures")}
    values |= _percentiles(statistics, ("inference",))
    values |= {"doing": node.engine.activity or node.engine.switching, "bond": node.bond}
    values |= {"unknown_parameters": ", ".join(node.unknown_parameters)}
    faults = map(node.fault, ("engine", "inference", "node", "model"))
    fault = next((fault for fault in faults if fault.text), ReportedFault())
    values |= {"last_error": fault.text, "fault": fault.kind.value}
    level, text = engine_verdict(node)
    return _status("engine", str(values.get("device", "")), level, text, values)


def engine_verdict(node: NodeSnapshot) -> tuple[Level, str]:
    """Level and message of the engine; the most severe condition wins.

    ERROR: the model could not be loaded, the last inference or a callback failed.
    WARN: the model is loading, another requested model is not used, or the node is not active.
    """
    engine, model_fault = node.engine, node.fault("model").text
    if fault := node.fault("engine").text:
        return Level.ERROR, "; ".join(filter(None, (fault, engine.activity)))
    if node.lifecycle_state != "active":
        return Level.WARN, f"node is {node.lifecycle_state}"
    if engine.activity:
        return Level.WARN, engine.activity
    if not node.enabled:
        return Level.OK, "paused by ~/enable"
    if engine.statistics.recent("failures"):
        return Level.ERROR, node.fault("inference").text
    if engine.statistics.recent("callback_failures"):
        return Level.ERROR, node.fault("node").text
    if node.clock_missing:
        return Level.WARN, CLOCK_MISSING
    text = "; ".join(filter(None, ("segmenting", engine.switching, model_fault)))
    return Level.WARN if model_fault else Level.OK, text


def camera_status(camera: CameraSnapshot, node: NodeSnapshot) -> DiagnosticStatus:
    """Status of a camera, under its name."""
    statistics = camera.statistics
    counts, last_s = statistics.counts(), statistics.last_received_s
    verdict, fault = camera_verdict(camera, node), node.fault(camera.name)
    values: dict[str, Any] = {
        "state": verdict.state.value,
        "image_topic": camera.image_topic,
        "publishers": camera.publishers,
        "subscribed": camera.silent_s is not None,
        "rate_in_hz": f"{statistics.rate_hz('received'):.2f}",
        "rate_out_hz": f"{statistics.rate_hz('published'):.2f}",
        "received": counts.get("received", 0),
        "published": counts.get("published", 0),
        "dropped": sum(counts.get(reason, 0) for reason in DROPS),
        **{f"dropped_{reason}": counts.get(reason, 0) for reason in DROPS},
        "lost": counts.get("lost", 0) if camera.losses_counted else "unknown",
        "lost_overtaken": max(0, counts.get("lost", 0) - counts.get("lost_in_transport", 0)),
        "missing_by_stamp": counts.get("missing", 0),
        "not_encoded": counts.get("not_encoded", 0),
        "bad_clouds": counts.get("bad_clouds", 0),
        "qos_problems": counts.get("qos_problems", 0),
        **_percentiles(statistics, STAGES),
        **{f"confidence_{name}": f"{value:.3f}" for name, value in camera.confidences.items()},
        "last_frame_age_s": "never" if last_s is None else f"{time.monotonic() - last_s:.2f}",
        "last_error": fault.text,
        "fault": fault.kind.value,
    }
    return _status(camera.name, camera.name, verdict.level, verdict.text, values)


def _status(name: str, hardware: str, level: Level, text: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level.value,
        name=name,
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
    """Memory of a CUDA device; empty for other devices."""
    if not device.startswith("cuda") or "torch" not in sys.modules:  # TensorRT may run without PyTorch
        return {}
    import torch  # not at the top: other engines run without it

    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "gpu_memory_free_mb": f"{free / 1e6:.0f}",
        "gpu_memory_total_mb": f"{total / 1e6:.0f}",
        "gpu_memory_of_torch_mb": f"{torch.cuda.memory_reserved(device) / 1e6:.0f}",
    }
