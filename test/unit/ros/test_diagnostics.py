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
NODE = NodeSnapshot(
    lifecycle_state="active",
    enabled=True,
    engine=EngineSnapshot(None, "", "", "", Statistics()),
    cameras=(),
    faults={"inference": OF_INFERENCE, TOPIC: OF_CAMERA},
    stale_after_s=2.0,
    max_rate_hz=0.0,
    max_age_s=0.0,
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
        confidences=(),
        camera_info_problem="",
        camera_info_latched=False,
        losses_counted=True,
    )
    return replace(found, **changes)


def node(cameras: int = 1, **changes: Any) -> NodeSnapshot:
    return replace(
        NODE,
        **{
            "engine": EngineSnapshot(None, "", "", "", Statistics()),
            "cameras": (camera(),) * cameras,
            **changes,
        },
    )


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def verdict(found: CameraSnapshot, snapshot: NodeSnapshot = NODE) -> tuple[Level, str]:
    result = camera_verdict(found, snapshot)
    return result.level, result.text


# --- Values ----------------------------------------------------------------------------------------------------------


def test_values_of_a_node_at_the_start() -> None:
    snapshot = node(lifecycle_state="unconfigured", faults={})
    engine = engine_status(snapshot)
    assert (engine.name, engine.hardware_id) == ("engine", "")
    assert values(engine) == {
        "lifecycle_state": "unconfigured",
        "batches": "0",
        "frames": "0",
        "failures": "0",
        "doing": "",
        "bond": "formed",
        "unknown_parameters": "resolutoin, modell",
        "last_error": "",
        "fault": "",
    }
    status = camera_status(camera(silent_s=None, publishers=0), snapshot)
    assert (status.name, status.hardware_id) == (TOPIC, TOPIC)
    counts = ("received", "published", "dropped", "lost", "lost_overtaken", "missing_by_stamp", "not_encoded")
    assert values(status) == {
        "state": "node_not_active",
        "image_topic": TOPIC,
        "publishers": "0",
        "subscribed": "False",
        "rate_in_hz": "0.00",
        "rate_out_hz": "0.00",
        **dict.fromkeys((*counts, "qos_problems", "bad_clouds"), "0"),
        **{f"dropped_{reason}": "0" for reason in DROPS},
        "frame_rate_node": "0.00",
        "frame_rate_msg": "0.00",
        "current_delay_from_realtime_ms": "N/A",
        "last_frame_age_s": "never",
        "last_error": "",
        "fault": "",
    }


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
    assert [of_engine[k] for k in ("batches", "frames", "failures")] == ["1", "2", "3"]
    assert (of_engine["inference_p50_ms"], of_engine["inference_p95_ms"]) == ("12.0", "12.0")
    assert (of_engine["doing"], of_engine["last_error"]) == ("loading", "a callback failed")
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


def test_rates() -> None:
    found = camera(received_s=0.1)
    for name, hz in (("received", 10), ("published", 5)):
        with_rate(found.statistics, name, hz)
    status = values(camera_status(found, NODE))
    assert float(status["rate_in_hz"]) == pytest.approx(10, rel=0.1)
    assert float(status["rate_out_hz"]) == pytest.approx(5, rel=0.1)


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


def test_an_engine_short_of_memory_gives_its_largest_batch() -> None:
    found = values(
        engine_status(node(cameras=2, engine=of_engine(most_at_once=1, fallback_reasons=("a", "b"))))
    )
    assert found["pictures_at_once"] == "1 of 2: a larger batch runs out of memory"
    assert found["passed_over"] == "a; b"
    assert "pictures_at_once" not in values(engine_status(node(cameras=1, engine=of_engine(most_at_once=1))))


def test_memory_and_temperature_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3_400_000_400_000, 8_600_000_600_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2_300_000_300_000)
    monkeypatch.setattr(torch.cuda, "temperature", lambda device: 61)

    def gpu_values() -> dict[str, str]:
        status = engine_status(node(engine=of_engine(device="cuda:1")))
        return {key: value for key, value in values(status).items() if key.startswith("gpu")}

    assert gpu_values() == {
        "gpu_memory_free_mb": "3400000",
        "gpu_memory_total_mb": "8600001",
        "gpu_memory_of_torch_mb": "2300000",
        "gpu_temperature_c": "61",
    }

    def refuse(device: str) -> int:
        raise ImportError("no pynvml")

    monkeypatch.setattr(torch.cuda, "temperature", refuse)
    assert len(gpu_values()) == 3


# --- The engine's verdict --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "fault", "activity", "expected"),
    [
        ("unconfigured", ReportedFault(), "", (WARN, "node is unconfigured")),
        ("inactive", ReportedFault(), "loading", (WARN, "node is inactive")),
        ("active", ReportedFault(), "loading (2 s)", (WARN, "loading (2 s)")),
        ("active", OF_ENGINE, "loading (2 s)", (ERROR, "no driver; loading (2 s)")),
        ("inactive", OF_ENGINE, "", (ERROR, "no driver")),
        ("active", ReportedFault(), "", (OK, "segmenting")),
    ],
)
def test_engine(state: str, fault: ReportedFault, activity: str, expected: tuple[Level, str]) -> None:
    engine = EngineSnapshot(None, activity, "", "", Statistics())
    snapshot = node(lifecycle_state=state, faults={"engine": fault}, engine=engine)
    assert engine_verdict(snapshot) == expected


def test_engine_whose_inferences_or_callbacks_fail() -> None:
    snapshot = node(faults={"node": OF_CALLBACK, "inference": OF_INFERENCE})
    assert engine_verdict(snapshot) == (OK, "segmenting")
    snapshot.engine.statistics.count("callback_failures")
    assert engine_verdict(snapshot) == (ERROR, "a callback failed")
    snapshot.engine.statistics.count("failures")
    assert engine_verdict(snapshot) == (ERROR, "of inference")
    assert values(engine_status(snapshot))["last_error"] == "of inference"


def test_engine_of_a_paused_node_without_a_clock_or_with_another_model_requested() -> None:
    assert engine_verdict(node(enabled=False)) == (OK, "paused by ~/enable")
    assert engine_verdict(node(clock_missing=True)) == (WARN, CLOCK_MISSING)
    loading = EngineSnapshot(None, "", "loading", "", Statistics())
    assert engine_verdict(node(engine=loading)) == (OK, "segmenting; loading")
    kept = node(faults={"model": ReportedFault(Fault.MODEL_KEPT, "model 'b' is not used")})
    assert engine_verdict(kept) == (WARN, "segmenting; model 'b' is not used")


# --- The cameras' verdicts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["unconfigured", "inactive"])
def test_camera_of_a_node_that_is_not_active(state: str) -> None:
    found, snapshot = camera(topic_problem="no publisher"), replace(NODE, lifecycle_state=state)
    assert verdict(found, snapshot) == (OK, f"node is {state}")
    assert verdict(found, replace(snapshot, faults={"engine": OF_ENGINE})) == (
        ERROR,
        f"node is {state}: no driver",
    )


def test_camera_while_a_model_loads_or_the_node_is_paused() -> None:
    found = camera(received_s=0.1, topic_problem="no publisher")
    assert verdict(found, node(engine=EngineSnapshot(None, "loading", "", "", Statistics()))) == (
        OK,
        "waiting for the model",
    )
    assert verdict(found, replace(NODE, enabled=False)) == (OK, "paused by ~/enable")


def test_camera_with_incompatible_qos() -> None:
    for received_s, level in ((None, ERROR), (60.0, WARN)):
        found = camera(received_s, topic_problem="less to the point")
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
    assert camera_verdict(found, NODE).state is CameraState.NO_RESULTS


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
    found = camera(0.1, without_result_s=8.0)
    for reason, number in counts.items():
        found.statistics.count(reason, number)
    assert verdict(found) == (level, f"{WITHOUT}8.0 s: {words}")


@pytest.mark.parametrize(
    ("transport_ms", "words"),
    [
        ((400.0, 400.0, 9000.0), "the engine is too slow for max_age"),
        ((100_020.0, 100_020.0, 109_000.0), "they are 100.0 s old on arrival: synchronise the clocks"),
    ],
)
def test_images_that_are_too_old_on_arrival_hint_at_the_clocks(
    transport_ms: tuple[float, ...], words: str
) -> None:
    found = camera(0.1, without_result_s=8.0)
    found.statistics.count("too_old", 3)
    for duration_ms in transport_ms:
        found.statistics.time({"transport": duration_ms})
    assert words in verdict(found, replace(NODE, max_age_s=0.5))[1]


@pytest.mark.parametrize(
    ("waiting_s", "usual_ms", "max_rate_hz", "late", "stale_after_s"),
    [
        (1.5, None, 0.0, False, 2.0),
        (2.5, None, 0.0, True, 2.0),
        (0.8, None, 0.0, True, 0.5),
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
    level, text = verdict(found, replace(NODE, stale_after_s=stale_after_s, max_rate_hz=max_rate_hz))
    assert (level, text.startswith(WITHOUT)) == ((ERROR, True) if late else (OK, False))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("bad", "2 of 10 images could not be decoded: of the camera"),
        ("failed", "2 of 10 images failed in inference: of inference"),
        ("too_old", "2 of 10 images were older than max_age: of the camera"),
        ("lost_in_transport", "2 images were lost in transport, 10 received: "),
        ("missing", "2 images were lost in transport, 10 received: "),
    ],
)
def test_a_tenth_of_the_images_may_be_dropped_or_lost(reason: str, words: str) -> None:
    found = camera(0.1)
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
    assert values(camera_status(found, NODE))["lost_overtaken"] == "8"
    found.statistics.count("missing", 1)
    assert verdict(found)[0] is WARN
