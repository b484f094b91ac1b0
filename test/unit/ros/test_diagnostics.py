# SPDX-License-Identifier: Apache-2.0
"""Statuses on /diagnostics in every state, made from snapshots whose counts and times are set by hand."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus

from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.ros.camera_health import CameraSnapshot, CameraState, Level, NodeSnapshot, camera_verdict
from canet_ros.ros.diagnostics import (
    CLOCK_MISSING,
    camera_status,
    engine_status,
    engine_verdict,
)
from canet_ros.ros.engine_supervisor import EngineSnapshot
from canet_ros.ros.fault_log import Fault, ReportedFault
from canet_ros.ros.statistics import DROPS, STAGES, Statistics

pytestmark = pytest.mark.ros
OK, WARN, ERROR = Level
TOPIC = "/front/image_raw"
OF_CAMERA = ReportedFault(Fault.IMAGE_REFUSED, "of the camera")
OF_INFERENCE = ReportedFault(Fault.INFERENCE_FAILED, "of inference")
OF_ENGINE = ReportedFault(Fault.MODEL_NOT_LOADED, "no driver")
OF_CALLBACK = ReportedFault(Fault.CALLBACK_FAILED, "a callback failed")
KEPT = ReportedFault(Fault.MODEL_KEPT, "model 'b' is not used")

NODE = NodeSnapshot(
    lifecycle_state="active",
    enabled=True,
    engine=EngineSnapshot(None, "", "", "", Statistics()),
    cameras=(),
    faults={"inference": OF_INFERENCE, TOPIC: OF_CAMERA},
    stale_after_s=2.0,
    max_rate_hz=0.0,
    clock_missing=False,
    bond="formed",
    unknown_parameters=("resolutoin", "modell"),
)


def camera(received_s: float | None = None, **changes: Any) -> CameraSnapshot:
    """A subscribed camera that received ten images, the last one so many seconds ago; None: it received none."""
    statistics = Statistics()
    if received_s is not None:
        statistics.count("received", 10)
        statistics.last_received_s = time.monotonic() - received_s
    found = CameraSnapshot(
        name=TOPIC,
        image_topic=TOPIC,
        publishers=1,
        statistics=statistics,
        silent_s=100.0 if received_s is None else received_s,
        without_result_s=None,
        topic_problem="",
        rivals="",
        out_of_distribution="",
        confidences={},
        camera_info_problem="",
        camera_info_latched=False,
        losses_counted=True,
    )
    return replace(found, **changes)


def node(**changes: Any) -> NodeSnapshot:
    engine = EngineSnapshot(None, "", "", "", Statistics())
    return replace(NODE, **{"engine": engine, "cameras": (camera(),), **changes})


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def verdict(found: Any, snapshot: NodeSnapshot = NODE) -> tuple[Level, str]:
    result = camera_verdict(found, snapshot)
    return result.level, result.text


# --- Values ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages and rates do not depend on the load of the machine."""
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s)


def test_counts_and_durations() -> None:
    engine, found = Statistics(), camera(received_s=1.25)
    for number, name in enumerate(("batches", "frames", "failures"), start=1):
        engine.count(name, number)
    engine.time({"inference": 12.0})
    for number, name in enumerate((*DROPS, "published", "lost", "missing", "not_encoded", "qos_problems"), 1):
        found.statistics.count(name, number)
    for stage in STAGES:
        found.statistics.time({stage: 4.0})
        found.statistics.time({stage: 8.0})
    snapshot = node(engine=EngineSnapshot(None, "loading", "", "", engine), faults={"node": OF_CALLBACK})
    of_engine = values(engine_status(snapshot))
    names = ("batches", "frames", "failures", "inference_p50_ms", "doing", "last_error")
    assert [of_engine[k] for k in names] == ["1", "2", "3", "12.0", "loading", "a callback failed"]
    of_camera = values(camera_status(found, NODE))
    assert [of_camera[f"dropped_{reason}"] for reason in DROPS] == ["1", "2", "3", "4", "5", "6", "7"]
    names = ("received", "dropped", "published", "lost", "missing_by_stamp", "not_encoded", "qos_problems")
    assert [of_camera[name] for name in names] == ["10", "28", "8", "9", "10", "11", "12"]
    assert of_camera["subscribed"] == "True"
    assert (of_camera["last_error"], of_camera["fault"]) == ("of the camera", "image_refused")
    assert float(of_camera["last_frame_age_s"]) == pytest.approx(1.25, abs=0.01)
    for stage in STAGES:
        assert (of_camera[f"{stage}_p50_ms"], of_camera[f"{stage}_p95_ms"]) == ("6.0", "7.8")


def with_rate(statistics: Statistics, name: str, hz: int) -> None:
    """The last second of events at this rate."""
    now_s = time.monotonic()
    statistics._events[name] = deque((now_s - 1 + i / hz, 1) for i in range(hz))


def test_the_engine_in_use(segmenter: Segmenter) -> None:
    status = engine_status(node(engine=EngineSnapshot(segmenter, "", "", "passed", Statistics())))
    assert (status.level, status.message, status.hardware_id) == (OK.value, "segmenting", "cpu")
    found = values(status)
    assert [found[k] for k in ("model", "resolution", "engine", "device", "precision", "self_test")] == [
        "random", "160x120", "onnxruntime", "cpu", "fp32", "passed"
    ]  # fmt: skip
    assert found["reason"] == segmenter.engine.reason
    assert not [key for key in found if key.startswith("gpu") or "at_once" in key]


# --- Verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activity", "requested", "changes", "expected"),
    [
        ("", "", {}, (OK, "segmenting")),
        ("", "", {"lifecycle_state": "unconfigured"}, (WARN, "node is unconfigured")),
        ("loading (2 s)", "", {}, (WARN, "loading (2 s)")),
        ("loading (2 s)", "", {"faults": {"engine": OF_ENGINE}}, (ERROR, "no driver; loading (2 s)")),
        ("", "", {"enabled": False}, (OK, "paused by ~/enable")),
        ("", "", {"clock_missing": True}, (WARN, CLOCK_MISSING)),
        ("", "loading", {}, (OK, "segmenting; loading")),
        ("", "", {"faults": {"model": KEPT}}, (WARN, "segmenting; model 'b' is not used")),
    ],
)
def test_engine(activity: str, requested: str, changes: dict[str, Any], expected: tuple[Level, str]) -> None:
    engine = EngineSnapshot(None, activity, requested, "", Statistics())
    assert engine_verdict(node(engine=engine, **changes)) == expected


def test_engine_whose_inferences_or_callbacks_fail() -> None:
    snapshot = node(faults={"node": OF_CALLBACK, "inference": OF_INFERENCE})
    assert engine_verdict(snapshot) == (OK, "segmenting")
    snapshot.engine.statistics.count("callback_failures")
    assert engine_verdict(snapshot) == (ERROR, "a callback failed")
    snapshot.engine.statistics.count("failures")
    assert engine_verdict(snapshot) == (ERROR, "of inference")
    assert values(engine_status(snapshot))["last_error"] == "of inference"


NO_PUBLISHER = {"topic_problem": "no publisher"}
HUNG = {"without_result_s": 7.04}
LOADING = EngineSnapshot(None, "loading", "", "", Statistics())
WITHOUT = "images arrive, but no result has been published for 7.0 s: "


@pytest.mark.parametrize(
    ("received_s", "changes", "of_node", "counts", "expected"),
    [
        (None, NO_PUBLISHER, {"lifecycle_state": "inactive"}, {}, (OK, "node is inactive")),
        (None, {}, {"lifecycle_state": "inactive", "faults": {"engine": OF_ENGINE}}, {},
         (ERROR, "node is inactive: no driver")),
        (0.1, NO_PUBLISHER, {"engine": LOADING}, {}, (OK, "waiting for the model")),
        (None, {"silent_s": None}, {}, {}, (OK, "idle: its results have no subscriber")),
        (None, {}, {}, {}, (OK, "waiting for the first image")),
        (None, NO_PUBLISHER, {}, {}, (ERROR, "no publisher")),
        (3.0, NO_PUBLISHER, {}, {}, (WARN, "no publisher")),
        (1.0, NO_PUBLISHER, {}, {}, (OK, "0.0 Hz")),  # the image is newer information
        (0.1, {"rivals": "/other publishes"}, {}, {}, (WARN, "/other publishes")),
        (0.1, {"out_of_distribution": "unlike"}, {}, {}, (WARN, "unlike")),
        (0.1, {"camera_info_problem": "3 s older"}, {}, {}, (WARN, "0.0 Hz; 3 s older")),
        (0.1, {"camera_info_problem": "3 s older", "camera_info_latched": True}, {}, {}, (OK, "0.0 Hz; 3 s older")),
        (0.1, HUNG, {}, {"replaced": 5}, (ERROR, f"{WITHOUT}inference has not returned for 7.0 s")),
        (0.1, HUNG, {}, {"too_old": 9},
         (WARN, f"{WITHOUT}9 were older than max_age: of the camera")),
        (0.1, HUNG, {}, {"failed": 4, "bad": 3, "unwanted": 9},
         (ERROR, f"{WITHOUT}4 failed in inference: of inference")),
        (0.1, {"without_result_s": 3.5}, {"max_rate_hz": 0.5}, {}, (OK, "0.0 Hz")),  # two periods
        # A tenth of the images may be dropped or lost.
        (0.1, {}, {}, {"bad": 1}, (OK, "0.0 Hz")),
        (0.1, {}, {}, {"bad": 2}, (WARN, "2 of 10 images could not be decoded: of the camera")),
        (0.1, {}, {}, {"lost": 9, "lost_in_transport": 1, "missing": 9}, (OK, "0.0 Hz")),  # others overtook them
    ],
)  # fmt: skip
def test_camera(
    received_s: float | None,
    changes: dict[str, Any],
    of_node: dict[str, Any],
    counts: dict[str, int],
    expected: tuple[Level, str],
) -> None:
    found = camera(received_s, **changes)
    for name, number in counts.items():
        found.statistics.count(name, number)
    assert verdict(found, replace(NODE, **of_node)) == expected


def test_camera_that_works_and_one_whose_images_are_lost() -> None:
    found = camera(0.1)
    with_rate(found.statistics, "published", 8)
    level, text = verdict(found)
    assert level is OK
    assert float(text.removesuffix(" Hz")) == pytest.approx(8, abs=0.5)
    found.statistics.count("missing", 2)
    level, text = verdict(found)
    assert level is WARN
    assert text.startswith("2 images were lost in transport, 10 received: ")
    assert camera_verdict(camera(0.1, **HUNG), NODE).state is CameraState.NO_RESULTS


def test_results_may_take_twice_their_usual_time() -> None:
    for waiting_s, level in ((3.5, OK), (4.5, ERROR)):
        found = camera(0.1, without_result_s=waiting_s)
        found.statistics.time({"age": 2000.0})
        assert verdict(found)[0] is level
