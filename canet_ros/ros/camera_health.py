# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a camera, and who publishes its topic: pure functions, for the node and ``canet doctor``."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.qos import QoSCompatibility, qos_check_compatible

from canet_ros.hints import see_docs
from canet_ros.ros.statistics import DROPS, Statistics

# Share of a camera's images that may be lost or useless before it is worth a warning.
_TOLERATED_SHARE = 0.1
# Reasons for a drop that are faults, in words.
_DROPPED = {"too_old": "older than max_age", "bad": "no pictures", "failed": "lost in inference"}


class TopicState(enum.Enum):
    """How the publishers of an image topic fit its subscriber."""

    PUBLISHED = enum.auto()
    NO_PUBLISHER = enum.auto()
    WRONG_TYPE = enum.auto()
    QOS_MISMATCH = enum.auto()


def topic_state(
    publishers: Sequence[Any], wanted_types: Sequence[str], asked: Sequence[Any]
) -> tuple[TopicState, str]:
    """The state, with the types that are published or the QoS policies that do not fit.

    Args:
        publishers: the topic's ``TopicEndpointInfo``.
        asked: QoS profiles of the subscriptions; empty: nothing is known to be asked.
    """
    if not publishers:
        return TopicState.NO_PUBLISHER, ""
    fitting = [publisher for publisher in publishers if publisher.topic_type in wanted_types]
    if not fitting:
        return TopicState.WRONG_TYPE, ", ".join(sorted({publisher.topic_type for publisher in publishers}))
    problems = [qos_problem(publisher.qos_profile, ask) for publisher in fitting for ask in asked]
    if problems and all(problems):
        return TopicState.QOS_MISMATCH, problems[0]
    return TopicState.PUBLISHED, ""


def qos_problem(offered: Any, asked: Any) -> str:
    """Which policies of a publisher offer less than a subscription asks; empty: the two fit."""
    compatibility, reason = qos_check_compatible(offered, asked)
    if compatibility != QoSCompatibility.ERROR:
        return ""
    return " ".join(str(reason).split()).replace("ERROR: ", "").strip("; ") or "incompatible"


def mixed_problem(cameras: Sequence[str]) -> str:
    """That several nodes publish one image topic; empty: at most one does."""
    if len(cameras) < 2:
        return ""
    return f"{len(cameras)} cameras publish it, and their pictures come mixed: {', '.join(cameras)}"


class Level(enum.Enum):
    """As in ``diagnostic_msgs/DiagnosticStatus``."""

    OK = b"\x00"
    WARN = b"\x01"
    ERROR = b"\x02"


class CameraState(enum.Enum):
    """What a camera's status on /diagnostics is about; the value is published as ``state``."""

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
class Conditions:
    """What is the same for all cameras of a node.

    Attributes:
        lifecycle_state: ``active`` or another label.
        engine_fault, inference_fault: the last ones, in words; empty: none.
        stale_after_s, max_rate_hz, max_age_s: see the parameters.
    """

    lifecycle_state: str
    enabled: bool
    loading: bool
    engine_fault: str
    inference_fault: str
    stale_after_s: float
    max_rate_hz: float
    max_age_s: float


@dataclass(frozen=True)
class CameraSnapshot:
    """One camera at one moment.

    Attributes:
        silent_s: how long no image has come although one is listened for; None: nobody listens.
        without_result_s: how long images have come of which none was published; None: none waits.
        fault: the camera's last one, in words.
        trouble: why no images come, by the graph.
        rivals: who else publishes the results or the images.
        out_of_distribution: that images are unlike those the model knows.
        camera_info_problem: that the camera_info somebody wants is missing or old.
        losses_counted: whether the middleware tells which images were lost.
    """

    name: str
    image_topic: str
    publishers: int
    statistics: Statistics
    silent_s: float | None
    without_result_s: float | None
    fault: str
    trouble: str
    rivals: str
    out_of_distribution: str
    confidences: tuple[tuple[str, float], ...]
    camera_info_problem: str
    camera_info_latched: bool
    losses_counted: bool


def camera_verdict(camera: CameraSnapshot, node: Conditions) -> Verdict:
    """The most important thing to know of a camera."""
    if node.lifecycle_state != "active":
        text = f"node is {node.lifecycle_state}"
        if node.engine_fault:  # it has given up, or was not activated
            return Verdict(Level.ERROR, f"{text}: {node.engine_fault}", CameraState.NODE_NOT_ACTIVE)
        return Verdict(Level.OK, text, CameraState.NODE_NOT_ACTIVE)
    if node.loading:
        return Verdict(Level.OK, "waits for the model", CameraState.NO_MODEL_YET)
    if not node.enabled:
        return Verdict(Level.OK, "paused by ~/enable", CameraState.PAUSED)
    statistics = camera.statistics
    unseen = Level.WARN if statistics.last_received_s else Level.ERROR
    # What the subscription itself reports says how to mend it.
    if camera.silent_s is not None and statistics.recent("qos_problems"):
        return Verdict(unseen, camera.fault, CameraState.NO_IMAGES)
    # The graph is looked at twice a second; an image that has come since says more.
    came_s = time.monotonic() - (statistics.last_received_s or -math.inf)
    if camera.trouble and came_s > node.stale_after_s:
        return Verdict(unseen, camera.trouble, CameraState.NO_IMAGES)
    if camera.rivals:
        return Verdict(Level.WARN, camera.rivals, CameraState.RIVALS)
    if camera.silent_s is None:
        return Verdict(Level.OK, "idle: nobody subscribes to its results", CameraState.IDLE)
    received = statistics.recent("received")
    if not received:
        return Verdict(Level.OK, "waiting for the first image", CameraState.WAITING)
    rate = f"{statistics.rate_hz('published'):.1f} Hz"
    return (
        _without_results(camera, node)
        or _share_dropped(camera, node, received)
        or _share_lost(statistics, received)
        or _unusual(camera, rate)
        or Verdict(Level.OK, rate, CameraState.SEGMENTING)
    )


def _without_results(camera: CameraSnapshot, node: Conditions) -> Verdict | None:
    """Images come and nothing goes out: the reason that took most of them."""
    statistics, waited_s = camera.statistics, camera.without_result_s
    usual_s = (statistics.percentiles_ms("age") or (0.0, 0.0))[1] / 1e3
    allowed_s = max(node.stale_after_s, 2 * usual_s, 2 / node.max_rate_hz if node.max_rate_hz else 0.0)
    if waited_s is None or waited_s <= allowed_s:
        return None
    counts = {reason: statistics.recent(reason) for reason in DROPS if reason != "unwanted"}
    reason = max(counts, key=lambda reason: counts[reason])
    level = Level.ERROR
    if not counts[reason] or reason == "replaced":
        why = "the engine is at work on one and does not come back"
    elif reason == "too_old":
        level = Level.WARN
        why = f"{counts[reason]} were {_DROPPED[reason]}; {_age_hint(statistics, node.max_age_s)}"
    else:
        fault = node.inference_fault if reason == "failed" else camera.fault
        why = f"{counts[reason]} were {_DROPPED.get(reason, reason)}: {fault}"
    text = f"images come, and nothing has been published for {waited_s:.1f} s: {why}"
    return Verdict(level, text, CameraState.NO_RESULTS)


def _age_hint(statistics: Statistics, max_age_s: float) -> str:
    transport = statistics.percentiles_ms("transport")
    if transport is not None and transport[0] / 1e3 > max_age_s:
        age = f"{transport[0] / 1e3:.1f} s"
        return f"they come {age} old, so the clocks of camera and node differ, or the camera is late"
    return "the engine is too slow for it"


def _share_dropped(camera: CameraSnapshot, node: Conditions, received: int) -> Verdict | None:
    for reason in ("bad", "failed", "too_old"):
        number = camera.statistics.recent(reason)
        if number > _TOLERATED_SHARE * received:
            fault = node.inference_fault if reason == "failed" else camera.fault
            text = f"{number} of {received} images were {_DROPPED[reason]}: {fault}"
            return Verdict(Level.WARN, text, CameraState.IMAGES_DROPPED)
    return None


def _share_lost(statistics: Statistics, received: int) -> Verdict | None:
    # What was overtaken came: the node could not take it in time.
    overtaken = max(0, statistics.recent("lost") - statistics.recent("lost_on_the_way"))
    missing = max(statistics.recent("lost_on_the_way"), statistics.recent("missing") - overtaken)
    if missing <= _TOLERATED_SHARE * (received + missing):
        return None
    text = f"{missing} images were lost on the way, {received} came: {see_docs('transport.md')}"
    return Verdict(Level.WARN, text, CameraState.IMAGES_LOST)


def _unusual(camera: CameraSnapshot, rate: str) -> Verdict | None:
    """Results go out, and there is something to know of them."""
    if camera.out_of_distribution:
        return Verdict(Level.WARN, camera.out_of_distribution, CameraState.OUT_OF_DISTRIBUTION)
    if not camera.camera_info_problem:
        return None
    # One that is latched is meant to be old.
    level = Level.OK if camera.camera_info_latched else Level.WARN
    return Verdict(level, f"{rate}; {camera.camera_info_problem}", CameraState.CAMERA_INFO)
