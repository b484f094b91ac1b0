# SPDX-License-Identifier: Apache-2.0
"""Health on /diagnostics: one status per camera and one for the engine, for aggregators and for people."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.node import Node

from canet_ros.hints import see_docs
from canet_ros.inference import Segmenter
from canet_ros.ros.camera import Camera
from canet_ros.ros.camera_watch import CameraWatch
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.parameters import NodeParameters
from canet_ros.ros.statistics import DROPS, STAGES, WINDOW_S, Statistics
from canet_ros.ros.worker import InferenceWorker

# Share of a camera's images that may be lost on the way, or be no pictures, before it is worth a warning.
_TOLERATED_SHARE = 0.1
# Reasons for a drop that are faults, in words.
_DROPPED = {"too_old": "older than max_age", "bad": "no pictures", "failed": "lost in inference"}

_PAUSED = "paused by ~/enable"

Verdict = tuple[bytes, str]


class Diagnostics:
    """Publishes ``diagnostic_msgs/DiagnosticArray`` every ``diagnostics_period`` seconds, whatever the node's state.

    A camera that is silent for longer than ``stale_after`` is in ERROR if it has never been seen, else in WARN, as it
    is when it loses images, sends what is none, or meets an incompatible QoS. A camera whose images come while no
    result goes out is in WARN or ERROR, with the reason that took most of them. The engine is in ERROR if it could not
    be had, if the last inference failed or if a thread died, and in WARN while a model is loaded or the node is not
    active.

    Args:
        watches: by the cameras' names.
        doing: what the node does that takes long, in words; empty while it does nothing of the kind.
        self_test: what came of the model's test picture, in words.
        worker: the inference thread's; None while there is none.
        bond: how it stands with the bond to a lifecycle manager, in words.
        unknown_parameters: overrides that nobody declared.
        enabled: whether it is not paused by ``~/enable``.
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
        watches: Mapping[str, CameraWatch],
        doing: Callable[[], str],
        self_test: Callable[[], str],
        worker: Callable[[], InferenceWorker | None],
        bond: Callable[[], str],
        unknown_parameters: Sequence[str],
        enabled: Callable[[], bool],
    ) -> None:
        self._node = node
        self._settings = settings
        self._cameras = cameras
        self._segmenter = segmenter
        self._engine_statistics = engine_statistics
        self._faults = faults
        self._clock = steady_clock
        self._watches = watches
        self._doing = doing
        self._self_test = self_test
        self._worker = worker
        self._bond = bond
        self._unknown_parameters = unknown_parameters
        self._enabled = enabled
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
            self._timer = self._node.create_timer(period_s, self.publish, clock=self._clock)
            self._period_s = period_s

    def publish(self) -> None:
        """Say how it is now; called by a timer, and where something changes that cannot wait for it."""
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
                "passed_over": "; ".join(segmenter.engine.passed_over),
                "self_test": self._self_test(),
                **_gpu_values(segmenter.engine.device),
            }
        values |= {"batches": counts.get("batches", 0), "frames": counts.get("frames", 0)}
        values |= {"failures": counts.get("failures", 0)}
        values |= _percentiles(self._engine_statistics, ("inference",))
        worker, doing = self._worker(), self._doing()
        if segmenter is not None and segmenter.engine.most_at_once < len(self._cameras):
            most = segmenter.engine.most_at_once
            values["pictures_at_once"] = f"{most} of {len(self._cameras)}: out of memory with more"
        values |= {"engine_restarts": counts.get("engine_restarts", 0), "doing": doing, "bond": self._bond()}
        values |= {"unknown_parameters": ", ".join(self._unknown_parameters)}
        error = self._faults.last("engine")
        values["last_error"] = error or self._faults.last("inference") or self._faults.last("node")
        verdict = self._engine_verdict(state, error, worker, doing)
        return self._status("engine", str(values.get("device", "")), verdict, values)

    def _engine_verdict(self, state: str, error: str, worker: InferenceWorker | None, doing: str) -> Verdict:
        if error:
            return DiagnosticStatus.ERROR, f"{error}; {doing}" if doing else error
        if state == "active" and doing:
            return DiagnosticStatus.WARN, doing
        if state != "active":
            return DiagnosticStatus.WARN, f"node is {state}"
        if not self._enabled():
            return DiagnosticStatus.OK, _PAUSED
        died_s = worker.thread_died_s if worker is not None else None
        died = died_s is not None and time.monotonic() - died_s < WINDOW_S
        if died or self._engine_statistics.recent("failures"):
            return DiagnosticStatus.ERROR, self._faults.last("inference")
        if self._engine_statistics.recent("callback_failures"):
            return DiagnosticStatus.ERROR, self._faults.last("node")
        if self.without_clock():
            return (
                DiagnosticStatus.WARN,
                "use_sim_time is set, and nothing publishes /clock: ages mean nothing",
            )
        return DiagnosticStatus.OK, "segmenting"

    def without_clock(self) -> bool:
        """Whether the node waits for a clock that nobody publishes."""
        return bool(self._settings.value("use_sim_time")) and not self._node.count_publishers("/clock")

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
            "lost": counts.get("lost", 0) if camera.input.numbered else "unknown",
            "lost_overtaken": max(0, counts.get("lost", 0) - counts.get("lost_on_the_way", 0)),
            "missing_by_stamp": counts.get("missing", 0),
            "not_encoded": counts.get("not_encoded", 0),
            "qos_problems": counts.get("qos_problems", 0),
            **_percentiles(statistics, STAGES),
            **_greenwave_values(statistics),
            **{f"confidence_{name}": f"{value:.3f}" for name, value in camera.familiarity.values().items()},
            "last_frame_age_s": "never" if last_s is None else f"{time.monotonic() - last_s:.2f}",
            "last_error": self._faults.last(camera.name),
        }
        return self._status(camera.name, camera.name, self._camera_verdict(camera), values)

    def _camera_verdict(self, camera: Camera) -> Verdict:
        statistics, silent_s = camera.statistics, camera.silent_s()
        unseen = DiagnosticStatus.WARN if statistics.last_received_s else DiagnosticStatus.ERROR
        if self._settings.lifecycle_state != "active":
            error = self._faults.last("engine")  # why it has given up, or was not activated
            text = f"node is {self._settings.lifecycle_state}"
            return (DiagnosticStatus.ERROR, f"{text}: {error}") if error else (DiagnosticStatus.OK, text)
        if self._doing():
            return DiagnosticStatus.OK, "waits for the model"
        if not self._enabled():
            return DiagnosticStatus.OK, _PAUSED
        watch = self._watches[camera.name]
        # What the subscription itself reports says how to mend it.
        if silent_s is not None and statistics.recent("qos_problems"):
            return unseen, self._faults.last(camera.name)
        # The watch looks twice a second; an image that has come since says more.
        came_s = time.monotonic() - (statistics.last_received_s or -math.inf)
        if watch.trouble and came_s > float(self._settings.value("stale_after")):
            return unseen, watch.trouble
        if watch.rivals():
            return DiagnosticStatus.WARN, watch.rivals()
        if silent_s is None:
            return DiagnosticStatus.OK, "idle: nobody subscribes to its results"
        received = statistics.recent("received")
        if not received:
            return DiagnosticStatus.OK, "waiting for the first image"
        return (
            self._without_results(camera)
            or self._share_dropped(camera, received)
            or self._camera_info_verdict(camera)
            or (DiagnosticStatus.OK, f"{statistics.rate_hz('published'):.1f} Hz")
        )

    def _without_results(self, camera: Camera) -> Verdict | None:
        """Images come and nothing goes out: the reason that took most of them."""
        statistics = camera.statistics
        max_rate_hz = float(self._settings.value("max_rate"))
        usual_s = (statistics.percentiles_ms("age") or (0.0, 0.0))[1] / 1e3
        allowed_s = max(
            float(self._settings.value("stale_after")), 2 * usual_s, 2 / max_rate_hz if max_rate_hz else 0.0
        )
        waited_s = camera.without_result_s()
        if waited_s is None or waited_s <= allowed_s:
            return None
        counts = {reason: statistics.recent(reason) for reason in DROPS}
        counts.pop("unwanted")
        reason = max(counts, key=lambda reason: counts[reason])
        begin = f"images come, and nothing has been published for {waited_s:.1f} s"
        if not counts[reason] or reason == "replaced":
            return DiagnosticStatus.ERROR, f"{begin}: the engine is at work on one and does not come back"
        if reason == "too_old":
            return (
                DiagnosticStatus.WARN,
                f"{begin}: {counts[reason]} were {_DROPPED[reason]}; {self._age_hint(camera)}",
            )
        fault = self._faults.last("inference" if reason == "failed" else camera.name)
        return (
            DiagnosticStatus.ERROR,
            f"{begin}: {counts[reason]} were {_DROPPED.get(reason, reason)}: {fault}",
        )

    def _age_hint(self, camera: Camera) -> str:
        transport = camera.statistics.percentiles_ms("transport")
        limit_s = float(self._settings.value("max_age"))
        if transport is not None and transport[0] / 1e3 > limit_s:
            age = f"{transport[0] / 1e3:.1f} s"
            return f"they come {age} old, so the clocks of camera and node differ, or the camera is late"
        return "the engine is too slow for it"

    def _share_dropped(self, camera: Camera, received: int) -> Verdict | None:
        """More of the images are lost or useless than can be tolerated."""
        statistics = camera.statistics
        for reason in ("bad", "failed", "too_old"):
            number = statistics.recent(reason)
            if number > _TOLERATED_SHARE * received:
                fault = self._faults.last("inference" if reason == "failed" else camera.name)
                return (
                    DiagnosticStatus.WARN,
                    f"{number} of {received} images were {_DROPPED[reason]}: {fault}",
                )
        # What was overtaken came: the node could not take it in time.
        overtaken = max(0, statistics.recent("lost") - statistics.recent("lost_on_the_way"))
        missing = max(statistics.recent("lost_on_the_way"), statistics.recent("missing") - overtaken)
        if missing > _TOLERATED_SHARE * (received + missing):
            return (
                DiagnosticStatus.WARN,
                f"{missing} images were lost on the way, {received} came: {see_docs('transport.md')}",
            )
        unfamiliar = camera.familiarity.problem()
        return (DiagnosticStatus.WARN, unfamiliar) if unfamiliar else None

    def _camera_info_verdict(self, camera: Camera) -> Verdict | None:
        if not camera.camera_info_problem:
            return None
        # One that is latched is meant to be old.
        level = DiagnosticStatus.OK if camera.input.camera_info_latched else DiagnosticStatus.WARN
        return level, f"{camera.statistics.rate_hz('published'):.1f} Hz; {camera.camera_info_problem}"

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


def _greenwave_values(statistics: Statistics) -> dict[str, str]:
    """What greenwave_monitor's dashboards show of the camera's topic: rates by arrival and by stamp, age on arrival."""
    transport = statistics.percentiles_ms("transport")
    return {
        "frame_rate_node": f"{statistics.rate_hz('received'):.2f}",
        "frame_rate_msg": f"{statistics.stamped_rate_hz():.2f}",
        "current_delay_from_realtime_ms": "N/A" if transport is None else f"{transport[0]:.1f}",
    }


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
