# SPDX-License-Identifier: Apache-2.0
"""Statuses on /diagnostics in every state, made from snapshots whose counts and times are set by hand."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus

from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.ros.camera_health import CameraSnapshot, CameraState, Conditions, Level, camera_verdict
from canet_ros.ros.diagnostics import (
    CLOCK_MISSING,
    NodeSnapshot,
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
CONDITIONS = Conditions(
    lifecycle_state="active",
    enabled=True,
    loading=False,
    engine_fault=ReportedFault(),
    inference_fault=OF_INFERENCE,
    stale_after_s=2.0,
    max_rate_hz=0.0,
    max_age_s=0.0,
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
        fault=ReportedFault(),
        topic_problem="",
        rivals="",
        out_of_distribution="",
        confidences=(),
        camera_info_problem="",
        camera_info_latched=False,
        losses_counted=True,
    )
    return replace(found, **changes)


def node(
    conditions: Conditions = CONDITIONS, cameras: int = 1, engine: Any = None, **changes: Any
) -> NodeSnapshot:
    found = NodeSnapshot(
        **vars(conditions),
        engine=engine or EngineSnapshot(None, "", "", "", Statistics()),
        cameras=(camera(),) * cameras,
        model_fault=ReportedFault(),
        node_fault=ReportedFault(),
        clock_missing=False,
        bond="formed",
        unknown_parameters=("resolutoin", "modell"),
    )
    return replace(found, **changes)


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def verdict(found: CameraSnapshot, conditions: Conditions = CONDITIONS) -> tuple[Level, str]:
    result = camera_verdict(found, conditions)
    return result.level, result.text


# --- Values ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages and rates do not depend on the load of the machine."""
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s)


def test_counts_and_durations() -> None:
    engine, found = Statistics(), camera(received_s=1.25, fault=OF_CAMERA)
    for number, name in enumerate(("batches", "frames", "failures"), start=1):
        engine.count(name, number)
    engine.time({"inference": 12.0})
    for number, name in enumerate((*DROPS, "published", "lost", "missing", "not_encoded", "qos_problems"), 1):
        found.statistics.count(name, number)
    for stage in STAGES:
        found.statistics.time({stage: 4.0})
        found.statistics.time({stage: 8.0})
    snapshot = node(engine=EngineSnapshot(None, "loading", "", "", engine), node_fault=OF_CALLBACK)
    snapshot = replace(snapshot, inference_fault=ReportedFault())
    of_engine = values(engine_status(snapshot))
    assert [of_engine[k] for k in ("batches", "frames", "failures")] == ["1", "2", "3"]
    assert (of_engine["inference_p50_ms"], of_engine["inference_p95_ms"]) == ("12.0", "12.0")
    assert (of_engine["doing"], of_engine["last_error"]) == ("loading", "a callback failed")
    of_camera = values(camera_status(found, CONDITIONS))
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


def of_engine(**changes: Any) -> EngineSnapshot:
    fields = {
        "name": "torch",
        "device": "cpu",
        "precision": "fp32",
        "reason": "",
        "fallback_reasons": (),
        "most_at_once": 9,
    }
    engine = SimpleNamespace(**{**fields, **changes})
    segmenter: Any = SimpleNamespace(spec=SimpleNamespace(name="m"), resolution_text="1x1", engine=engine)
    return EngineSnapshot(segmenter, "", "", "", Statistics())


# --- The engine's verdict --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "fault", "activity", "expected"),
    [
        ("unconfigured", ReportedFault(), "", (WARN, "node is unconfigured")),
        ("inactive", ReportedFault(), "loading", (WARN, "node is inactive")),
        ("active", ReportedFault(), "loading (2 s)", (WARN, "loading (2 s)")),
        ("active", OF_ENGINE, "loading (2 s)", (ERROR, "no driver; loading (2 s)")),
        ("active", ReportedFault(), "", (OK, "segmenting")),
    ],
)
def test_engine(state: str, fault: ReportedFault, activity: str, expected: tuple[Level, str]) -> None:
    conditions = replace(CONDITIONS, lifecycle_state=state, engine_fault=fault)
    snapshot = node(conditions, engine=EngineSnapshot(None, activity, "", "", Statistics()))
    assert engine_verdict(snapshot) == expected


def test_engine_whose_inferences_or_callbacks_fail() -> None:
    snapshot = node(node_fault=OF_CALLBACK)
    assert engine_verdict(snapshot) == (OK, "segmenting")
    snapshot.engine.statistics.count("callback_failures")
    assert engine_verdict(snapshot) == (ERROR, "a callback failed")
    snapshot.engine.statistics.count("failures")
    assert engine_verdict(snapshot) == (ERROR, "of inference")
    assert values(engine_status(snapshot))["last_error"] == "of inference"


def test_engine_of_a_paused_node_without_a_clock_or_with_another_model_requested() -> None:
    assert engine_verdict(node(replace(CONDITIONS, enabled=False))) == (OK, "paused by ~/enable")
    assert engine_verdict(node(clock_missing=True)) == (WARN, CLOCK_MISSING)
    loading = EngineSnapshot(None, "", "loading", "", Statistics())
    assert engine_verdict(node(engine=loading)) == (OK, "segmenting; loading")
    kept = node(model_fault=ReportedFault(Fault.MODEL_KEPT, "model 'b' is not used"))
    assert engine_verdict(kept) == (WARN, "segmenting; model 'b' is not used")


# --- The cameras' verdicts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["unconfigured", "inactive"])
def test_camera_of_a_node_that_is_not_active(state: str) -> None:
    found, conditions = camera(topic_problem="no publisher"), replace(CONDITIONS, lifecycle_state=state)
    assert verdict(found, conditions) == (OK, f"node is {state}")
    assert verdict(found, replace(conditions, engine_fault=OF_ENGINE)) == (
        ERROR,
        f"node is {state}: no driver",
    )


def test_camera_while_a_model_loads_or_the_node_is_paused() -> None:
    found = camera(received_s=0.1, topic_problem="no publisher")
    assert verdict(found, replace(CONDITIONS, loading=True)) == (OK, "waiting for the model")
    assert verdict(found, replace(CONDITIONS, enabled=False)) == (OK, "paused by ~/enable")


def test_camera_with_incompatible_qos() -> None:
    for received_s, level in ((None, ERROR), (60.0, WARN)):
        found = camera(received_s, topic_problem="less to the point", fault=OF_CAMERA)
        found.statistics.count("qos_problems")
        assert verdict(found) == (level, "of the camera")
    assert verdict(replace(found, silent_s=None)) == (WARN, "less to the point")


@pytest.mark.parametrize(
    ("received_s", "expected"),
    [(None, (ERROR, "no publisher")), (3.0, (WARN, "no publisher")), (1.0, (OK, "0.0 Hz"))],
)
def test_camera_without_images(received_s: float | None, expected: tuple[Level, str]) -> None:
    """An image that came after the last look at the graph is newer information."""
    assert verdict(camera(received_s, topic_problem="no publisher")) == expected


def test_camera_that_waits_or_works() -> None:
    assert verdict(camera(silent_s=None)) == (OK, "idle: its results have no subscriber")
    assert verdict(camera()) == (OK, "waiting for the first image")
    assert verdict(camera(0.1, rivals="/other publishes")) == (WARN, "/other publishes")
    assert verdict(camera(0.1, out_of_distribution="unlike")) == (WARN, "unlike")
    found = camera(0.1)
    with_rate(found.statistics, "published", 8)
    level, text = verdict(found)
    assert level is OK
    assert float(text.removesuffix(" Hz")) == pytest.approx(8, abs=0.5)


@pytest.mark.parametrize("latched", [True, False])
def test_camera_with_an_old_camera_info(latched: bool) -> None:
    found = camera(0.1, camera_info_problem="3 s older", camera_info_latched=latched)
    assert verdict(found) == (OK if latched else WARN, "0.0 Hz; 3 s older")


WITHOUT = "images arrive, but no result has been published for "


@pytest.mark.parametrize("reason", [None, "replaced", "unwanted"])
def test_images_arrive_and_inference_does_not_return(reason: str | None) -> None:
    found = camera(0.1, without_result_s=7.04)
    if reason:
        found.statistics.count(reason, 5)
    assert verdict(found) == (ERROR, f"{WITHOUT}7.0 s: inference has not returned for 7.0 s")
    assert camera_verdict(found, CONDITIONS).state is CameraState.NO_RESULTS


@pytest.mark.parametrize(
    ("counts", "level", "words"),
    [
        ({"too_old": 9}, WARN, "9 were older than max_age; the engine is too slow for max_age"),
        ({"bad": 4, "replaced": 3}, ERROR, "4 could not be decoded: of the camera"),
        ({"failed": 4, "bad": 3, "unwanted": 9}, ERROR, "4 failed in inference: of inference"),
        ({"over_rate": 3}, ERROR, "3 were dropped (over_rate): of the camera"),
    ],
)
def test_images_arrive_without_results(counts: dict[str, int], level: Level, words: str) -> None:
    found = camera(0.1, without_result_s=8.0, fault=OF_CAMERA)
    for reason, number in counts.items():
        found.statistics.count(reason, number)
    assert verdict(found) == (level, f"{WITHOUT}8.0 s: {words}")


@pytest.mark.parametrize(
    ("waiting_s", "usual_ms", "max_rate_hz", "late", "stale_after_s"),
    [
        (2.5, None, 0.0, True, 2.0),
        (3.5, 2000.0, 0.0, False, 2.0),  # twice what results usually take
        (4.5, 2000.0, 0.0, True, 2.0),
        (3.5, None, 0.5, False, 2.0),  # two periods of max_rate
        (4.5, None, 0.5, True, 2.0),
    ],
)
def test_time_allowed_without_results(
    waiting_s: float, usual_ms: float | None, max_rate_hz: float, late: bool, stale_after_s: float
) -> None:
    found = camera(0.1, without_result_s=waiting_s)
    if usual_ms:
        found.statistics.time({"age": usual_ms})
    level, text = verdict(found, replace(CONDITIONS, stale_after_s=stale_after_s, max_rate_hz=max_rate_hz))
    assert (level, text.startswith(WITHOUT)) == ((ERROR, True) if late else (OK, False))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("bad", "2 of 10 images could not be decoded: of the camera"),
        ("too_old", "2 of 10 images were older than max_age: of the camera"),
        ("lost_in_transport", "2 images were lost in transport, 10 received: "),
        ("missing", "2 images were lost in transport, 10 received: "),
    ],
)
def test_a_tenth_of_the_images_may_be_dropped_or_lost(reason: str, words: str) -> None:
    found = camera(0.1, fault=OF_CAMERA)
    found.statistics.count(reason)
    assert verdict(found)[0] is OK
    found.statistics.count(reason)
    level, text = verdict(found)
    assert level is WARN
    assert text.startswith(words)


def test_overtaken_images_are_not_lost_in_transport() -> None:
    found = camera(0.1)
    for name, number in (("lost", 9), ("lost_in_transport", 1), ("missing", 9)):
        found.statistics.count(name, number)
    assert verdict(found)[0] is OK
    assert values(camera_status(found, CONDITIONS))["lost_overtaken"] == "8"
    found.statistics.count("missing", 1)
    assert verdict(found)[0] is WARN
