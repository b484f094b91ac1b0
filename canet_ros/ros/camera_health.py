# SPDX-License-Identifier: Apache-2.0
"""Snapshots of the node and its cameras, and the health of a camera as a pure function of them."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from canet_ros.hints import see_docs
from canet_ros.ros.fault_log import ReportedFault
from canet_ros.ros.statistics import Statistics

if TYPE_CHECKING:
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
class CameraSnapshot:
    """One camera at one moment; problems are texts, empty without one.

    Attributes:
        silent_s: time since the last image, or since the subscription; None: not subscribed.
        without_result_s: time since the first image after the last result; None: no image is pending.
        topic_problem: why no images arrive, according to the ROS graph.
        rivals: other publishers of the results or of the images.
        out_of_distribution: images differ from those the model was trained on.
        camera_info_problem: a camera_info that a subscriber needs is missing or outdated.
        losses_counted: whether the middleware numbers messages, so that lost images can be counted.
    """

    name: str
    image_topic: str
    publishers: int
    statistics: Statistics
    silent_s: float | None
    without_result_s: float | None
    topic_problem: str
    rivals: str
    out_of_distribution: str
    confidences: Mapping[str, float]
    camera_info_problem: str
    camera_info_latched: bool
    losses_counted: bool


@dataclass(frozen=True)
class NodeSnapshot:
    """State of the node from which the statuses are made.

    Attributes:
        lifecycle_state: ``active`` or another label.
        faults: the last ones by source: ``engine``, ``inference``, ``node``, ``model`` or the name of a camera.
        stale_after_s, max_rate_hz: see the parameters.
        clock_missing: whether use_sim_time is set and /clock has no publisher.
        bond: status of the bond with a lifecycle manager, as text.
        unknown_parameters: names given at start that the node does not have.
    """

    lifecycle_state: str
    enabled: bool
    engine: EngineSnapshot
    cameras: tuple[CameraSnapshot, ...]
    faults: Mapping[str, ReportedFault]
    stale_after_s: float
    max_rate_hz: float
    clock_missing: bool
    bond: str
    unknown_parameters: tuple[str, ...]

    def fault(self, source: str) -> ReportedFault:
        """The source's last fault."""
        return self.faults.get(source, ReportedFault())


def camera_verdict(camera: CameraSnapshot, node: NodeSnapshot) -> Verdict:
    """The most severe condition of a camera.

    Without images for longer than ``stale_after``: ERROR if none was ever received, else WARN. Images without results:
    WARN or ERROR, with the most frequent reason.
    """
    if node.lifecycle_state != "active":
        text = f"node is {node.lifecycle_state}"
        if node.fault("engine").text:
            return Verdict(Level.ERROR, f"{text}: {node.fault('engine').text}", CameraState.NODE_NOT_ACTIVE)
        return Verdict(Level.OK, text, CameraState.NODE_NOT_ACTIVE)
    if node.engine.activity:
        return Verdict(Level.OK, "waiting for the model", CameraState.NO_MODEL_YET)
    if not node.enabled:
        return Verdict(Level.OK, "paused by ~/enable", CameraState.PAUSED)
    statistics = camera.statistics
    unseen = Level.WARN if statistics.last_received_s else Level.ERROR
    # The graph is checked twice a second; an image received since is newer information.
    age_s = time.monotonic() - (statistics.last_received_s or -math.inf)
    if camera.topic_problem and age_s > node.stale_after_s:
        return Verdict(unseen, camera.topic_problem, CameraState.NO_IMAGES)
    if camera.rivals:
        return Verdict(Level.WARN, camera.rivals, CameraState.RIVALS)
    if camera.silent_s is None:
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


def _without_results(camera: CameraSnapshot, node: NodeSnapshot) -> Verdict | None:
    """Images arrive without results: name the most frequent reason."""
    statistics, pending_s = camera.statistics, camera.without_result_s
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


def _dropped(camera: CameraSnapshot, node: NodeSnapshot, received: int) -> Verdict | None:
    for reason in _DROPPED:
        number = camera.statistics.recent(reason)
        if number > _TOLERATED_FRACTION * received:
            text = f"{number} of {received} images {_why_dropped(reason, camera, node)}"
            return Verdict(Level.WARN, text, CameraState.IMAGES_DROPPED)
    return None


def _why_dropped(reason: str, camera: CameraSnapshot, node: NodeSnapshot) -> str:
    fault = node.fault("inference" if reason == "failed" else camera.name)
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


def _advice(camera: CameraSnapshot, rate: str) -> Verdict | None:
    """Results are published, with a remark."""
    if camera.out_of_distribution:
        return Verdict(Level.WARN, camera.out_of_distribution, CameraState.OUT_OF_DISTRIBUTION)
    if not camera.camera_info_problem:
        return None
    # A latched camera_info is old by design.
    level = Level.OK if camera.camera_info_latched else Level.WARN
    return Verdict(level, f"{rate}; {camera.camera_info_problem}", CameraState.CAMERA_INFO)
