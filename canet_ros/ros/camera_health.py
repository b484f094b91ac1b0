# SPDX-License-Identifier: Apache-2.0
"""Snapshot of the node for diagnostics, and the health of its cameras."""

from __future__ import annotations

import enum
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from canet_ros.hints import see_docs
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.statistics import Statistics

if TYPE_CHECKING:
    from canet_ros.ros.camera import Camera
    from canet_ros.ros.engine_supervisor import EngineSnapshot

_TOLERATED_FRACTION = 0.1  # of the images, lost or unusable
# Drop reasons that are faults, as text after "N of M images".
_DROPPED = {
    "bad": "could not be decoded",
    "failed": "failed in inference",
    "too_old": "were older than max_age",
}


class Level(enum.Enum):
    """As in ``diagnostic_msgs/DiagnosticStatus``."""

    OK = b"\x00"
    WARN = b"\x01"
    ERROR = b"\x02"


class CameraState(enum.Enum):
    """State of a camera; the value is published on /diagnostics as ``state``."""

    NODE_NOT_ACTIVE = "node_not_active"
    NO_MODEL_YET = "no_model_yet"
    PAUSED = "paused"
    NO_IMAGES = "no_images"
    RIVALS = "rivals"
    IDLE = "idle"
    WAITING = "waiting"
    NO_RESULTS = "no_results"
    IMAGES_DROPPED = "images_dropped"
    IMAGES_LOST = "images_lost"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    CAMERA_INFO = "camera_info"
    SEGMENTING = "segmenting"


@dataclass(frozen=True)
class Verdict:
    level: Level
    text: str
    state: CameraState


@dataclass(frozen=True)
class NodeSnapshot:
    """State of the node from which the statuses are made.

    Attributes:
        lifecycle_state: ``active`` or another label.
        faults: by source: ``engine``, ``inference``, ``node``, ``model`` or the name of a camera.
        stale_after_s, max_rate_hz: see the parameters.
        clock_missing: whether use_sim_time is set and /clock has no publisher.
        bond: status of the bond with a lifecycle manager, as text.
        unknown_parameters: names given at start that the node does not have.
    """

    lifecycle_state: str
    enabled: bool
    engine: EngineSnapshot
    cameras: tuple[Camera, ...]
    faults: FaultLog
    stale_after_s: float
    max_rate_hz: float
    clock_missing: bool
    bond: str
    unknown_parameters: tuple[str, ...]


def camera_verdict(camera: Camera, node: NodeSnapshot) -> Verdict:
    """The most severe condition of a camera.

    Without images for longer than ``stale_after``: ERROR if none was ever received, else WARN. Images without results:
    WARN or ERROR, with the most frequent reason.
    """
    if node.lifecycle_state != "active":
        text = f"node is {node.lifecycle_state}"
        if node.faults.last("engine").text:
            return Verdict(
                Level.ERROR, f"{text}: {node.faults.last('engine').text}", CameraState.NODE_NOT_ACTIVE
            )
        return Verdict(Level.OK, text, CameraState.NODE_NOT_ACTIVE)
    if node.engine.activity:
        return Verdict(Level.OK, "waiting for the model", CameraState.NO_MODEL_YET)
    if not node.enabled:
        return Verdict(Level.OK, "paused by ~/enable", CameraState.PAUSED)
    statistics = camera.statistics
    unseen = Level.WARN if statistics.last_received_s else Level.ERROR
    # The graph is checked twice a second; an image received since is newer information.
    age_s = time.monotonic() - (statistics.last_received_s or -math.inf)
    if camera.watch.topic_problem and age_s > node.stale_after_s:
        return Verdict(unseen, camera.watch.topic_problem, CameraState.NO_IMAGES)
    if camera.watch.rivals:
        return Verdict(Level.WARN, camera.watch.rivals, CameraState.RIVALS)
    if camera.silent_s() is None:
        return Verdict(Level.OK, "idle: its results have no subscriber", CameraState.IDLE)
    received = statistics.recent("received")
    if not received:
        return Verdict(Level.OK, "waiting for the first image", CameraState.WAITING)
    rate = f"{statistics.rate_hz('published'):.1f} Hz"
    return (
        _without_results(camera, node)
        or _dropped(camera, node, received)
        or _lost(statistics, received)
        or _advice(camera, rate)
        or Verdict(Level.OK, rate, CameraState.SEGMENTING)
    )


def _without_results(camera: Camera, node: NodeSnapshot) -> Verdict | None:
    """Images arrive without results: name the most frequent reason."""
    statistics, pending_s = camera.statistics, camera.without_result_s()
    usual_s = (statistics.percentiles_ms("age") or (0.0, 0.0))[1] / 1e3
    allowed_s = max(node.stale_after_s, 2 * usual_s, 2 / node.max_rate_hz if node.max_rate_hz else 0.0)
    if pending_s is None or pending_s <= allowed_s:
        return None
    counts = {reason: statistics.recent(reason) for reason in (*_DROPPED, "replaced")}
    reason = max(counts, key=lambda reason: counts[reason])
    why = f"inference has not returned for {pending_s:.1f} s"
    if counts[reason] and reason in _DROPPED:
        why = f"{counts[reason]} {_why_dropped(reason, camera, node)}"
    text = f"images arrive, but no result has been published for {pending_s:.1f} s: {why}"
    level = Level.WARN if reason == "too_old" else Level.ERROR
    return Verdict(level, text, CameraState.NO_RESULTS)


def _dropped(camera: Camera, node: NodeSnapshot, received: int) -> Verdict | None:
    for reason in _DROPPED:
        number = camera.statistics.recent(reason)
        if number > _TOLERATED_FRACTION * received:
            text = f"{number} of {received} images {_why_dropped(reason, camera, node)}"
            return Verdict(Level.WARN, text, CameraState.IMAGES_DROPPED)
    return None


def _why_dropped(reason: str, camera: Camera, node: NodeSnapshot) -> str:
    fault = node.faults.last("inference" if reason == "failed" else camera.name)
    return f"{_DROPPED[reason]}: {fault.text}"


def _lost(statistics: Statistics, received: int) -> Verdict | None:
    # An overtaken image did arrive; the node was too slow to take it.
    overtaken = max(0, statistics.recent("lost") - statistics.recent("lost_in_transport"))
    missing = max(statistics.recent("lost_in_transport"), statistics.recent("missing") - overtaken)
    if missing <= _TOLERATED_FRACTION * (received + missing):
        return None
    text = (
        f"{missing} images were lost in transport, {received} received: {see_docs('how-to/lost-images.md')}"
    )
    return Verdict(Level.WARN, text, CameraState.IMAGES_LOST)


def _advice(camera: Camera, rate: str) -> Verdict | None:
    """Results are published, with a remark."""
    if unusual := camera.ood_monitor.problem():
        return Verdict(Level.WARN, unusual, CameraState.OUT_OF_DISTRIBUTION)
    problem = camera.camera_info_problem
    if not problem:
        return None
    # A latched camera_info is old by design.
    level = Level.OK if camera.camera_info_latched else Level.WARN
    return Verdict(level, f"{rate}; {problem}", CameraState.CAMERA_INFO)
