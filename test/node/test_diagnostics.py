# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says in every state, without a camera, a model or waiting: counts and times are set by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")

import rclpy
import ros_graph
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from waiting import wait_until

from canet_ros.launching.camera_topics import camera_topics
from canet_ros.launching.network import interface_addresses
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.ros.camera import Camera, FrameIntake
from canet_ros.ros.camera_health import Conditions
from canet_ros.ros.camera_watch import CameraWatch
from canet_ros.ros.diagnostics import CLOCK_MISSING, Diagnostics, NodeSnapshot
from canet_ros.ros.engine_supervisor import EngineSnapshot
from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.frame_log import FrameLog
from canet_ros.ros.parameters import NodeParameters
from canet_ros.ros.statistics import DROPS, STAGES, Statistics

pytestmark = pytest.mark.ros
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
TOPIC = "/front/image_raw"
GREENWAVE = {
    "frame_rate_node": "0.00",
    "frame_rate_msg": "0.00",
    "current_delay_from_realtime_ms": "N/A",
}
assert ros_graph  # imported before rclpy is initialised: it chooses the domain


class Health:
    """Diagnostics with all that they look at, of one camera."""

    def __init__(self, context: rclpy.Context) -> None:
        self.node = rclpy.create_node("canet", namespace="/robot", context=context)
        self.settings = NodeParameters(self.node)
        self.faults = FaultLog(self.node.get_logger())
        self.engine = Statistics()
        topics = camera_topics([TOPIC], "segmentation")[0]
        intake = FrameIntake(FrameLog(self.node.get_logger()), lambda: 0, lambda: 0.0)
        self.camera = Camera(self.node, topics, topics.results, "raw", intake, self.faults)
        self.watch = CameraWatch(self.node, self.camera, "raw", interface_addresses())
        self.segmenter: Any = None
        self.doing = self.self_test = ""
        self.enabled, self.clock_missing = True, False
        self.received: list[DiagnosticArray] = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.received.append, 10)
        self.diagnostics = Diagnostics(self.node, Clock(clock_type=ClockType.STEADY_TIME), self.look)
        self.diagnostics.follow_period(self.settings.value("diagnostics_period"))
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)

    def look(self) -> NodeSnapshot:
        conditions = Conditions(
            lifecycle_state=self.settings.lifecycle_state,
            enabled=self.enabled,
            loading=bool(self.doing),
            engine_fault=self.faults.last("engine"),
            inference_fault=self.faults.last("inference"),
            stale_after_s=self.settings.value("stale_after"),
            max_rate_hz=self.settings.value("max_rate"),
            max_age_s=self.settings.value("max_age"),
        )
        return NodeSnapshot(
            conditions,
            EngineSnapshot(self.segmenter, self.doing, "", self.self_test, self.engine),
            cameras=(self.camera.snapshot(self.watch.topic_problem, self.watch.rivals()),),
            model_fault=self.faults.last("model"),
            node_fault=self.faults.last("node"),
            clock_missing=self.clock_missing,
            bond="formed",
            unknown_parameters=("resolutoin", "modell"),
        )

    def say(self) -> DiagnosticArray:
        self.received.clear()
        self.diagnostics.publish()
        wait_until(lambda: self._executor.spin_once(0.01) or self.received, "diagnostics", 3)
        return self.received[-1]

    def engine_says(self) -> tuple[bytes, str]:
        status = self.say().status[0]
        return status.level, status.message

    def camera_says(self) -> tuple[bytes, str]:
        status = self.say().status[1]
        return status.level, status.message

    def active(self, listening_s: float | None = 100.0, received_s: float | None = None) -> Statistics:
        """Active for long; a camera that is listened to for so long, and sent its last image so long ago."""
        self.settings.lifecycle_state = "active"
        now_s = time.monotonic()
        self.camera.input.subscribed_since_s = None if listening_s is None else now_s - listening_s
        if received_s is not None:
            self.camera.statistics.count("received", 10)
            self.camera.statistics.last_received_s = now_s - received_s
            self.camera.statistics.pending_since_s = None
        return self.camera.statistics

    def set(self, **values: Any) -> None:
        for result in self.node.set_parameters([Parameter(name, value=v) for name, v in values.items()]):
            assert result.successful, result.reason


@pytest.fixture(scope="module")
def context() -> Iterator[rclpy.Context]:
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    yield context
    context.try_shutdown()


@pytest.fixture
def health(context: rclpy.Context) -> Iterator[Health]:
    health = Health(context)
    yield health
    health.camera.input.subscribed_since_s = None
    health.node.destroy_node()


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


# The message


def test_one_status_for_the_engine_and_one_for_each_camera(health: Health) -> None:
    before = health.node.get_clock().now().nanoseconds
    message = health.say()
    stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    assert before <= stamp_ns <= health.node.get_clock().now().nanoseconds
    engine, camera = message.status
    assert (engine.name, engine.hardware_id) == ("robot/canet: engine", "")
    assert (camera.name, camera.hardware_id) == (f"robot/canet: {TOPIC}", TOPIC)
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
    assert values(camera) == {
        **GREENWAVE,
        "state": "node_not_active",
        "image_topic": TOPIC,
        "publishers": "0",
        "subscribed": "False",
        "rate_in_hz": "0.00",
        "rate_out_hz": "0.00",
        "received": "0",
        "published": "0",
        "dropped": "0",
        **{f"dropped_{reason}": "0" for reason in DROPS},
        "lost": "0",
        "lost_overtaken": "0",
        "missing_by_stamp": "0",
        "not_encoded": "0",
        "bad_clouds": "0",
        "qos_problems": "0",
        "last_frame_age_s": "never",
        "last_error": "",
        "fault": "",
    }


def test_what_was_counted_and_timed(health: Health) -> None:
    for number, name in enumerate(("batches", "frames", "failures"), start=1):
        health.engine.count(name, number)
    health.engine.time({"inference": 12.0})
    statistics = health.active(received_s=1.25)
    for number, name in enumerate((*DROPS, "published", "lost", "missing", "not_encoded", "qos_problems"), 1):
        statistics.count(name, number)
    for stage in STAGES:
        statistics.time({stage: 4.0})
        statistics.time({stage: 8.0})
    health.faults.remember(TOPIC, Fault.IMAGE_REFUSED, "a bad one")
    health.faults.remember("node", Fault.CALLBACK_FAILED, "of the node")
    health.doing = "loading"
    engine, camera = health.say().status
    found = values(engine)
    assert [found[k] for k in ("batches", "frames", "failures")] == ["1", "2", "3"]
    assert (found["inference_p50_ms"], found["inference_p95_ms"]) == ("12.0", "12.0")
    assert (found["doing"], found["last_error"]) == ("loading", "of the node")
    found = values(camera)
    assert [found[f"dropped_{reason}"] for reason in DROPS] == ["1", "2", "3", "4", "5", "6", "7"]
    assert (found["received"], found["dropped"], found["published"], found["lost"]) == ("10", "28", "8", "9")
    assert (found["missing_by_stamp"], found["not_encoded"], found["qos_problems"]) == ("10", "11", "12")
    assert found["subscribed"] == "True"
    assert found["last_error"] == "a bad one"
    assert float(found["last_frame_age_s"]) == pytest.approx(1.25, abs=0.2)
    assert len(found["last_frame_age_s"].partition(".")[2]) == 2
    for stage in STAGES:
        assert (found[f"{stage}_p50_ms"], found[f"{stage}_p95_ms"]) == ("6.0", "7.8")


def test_rates_and_the_publishers_of_the_topic(health: Health) -> None:
    statistics = health.active()
    now_s = time.monotonic()
    for name, hz in (("received", 10), ("published", 5)):
        statistics.count(name)
        statistics._events[name].clear()
        statistics._events[name].extend((now_s - 1 + i / hz, 1) for i in range(hz))
    publisher = health.node.create_publisher(Image, TOPIC, 1)
    found = values(health.say().status[1])
    assert float(found["rate_in_hz"]) == pytest.approx(10, rel=0.1)
    assert float(found["rate_out_hz"]) == pytest.approx(5, rel=0.1)
    assert found["publishers"] == "1"
    health.node.destroy_publisher(publisher)


def test_the_engine_that_is_at_work(health: Health, segmenter: Segmenter) -> None:
    health.segmenter, health.self_test = segmenter, "passed"
    health.active()
    status = health.say().status[0]
    assert (status.level, status.message, status.hardware_id) == (OK, "segmenting", "cpu")
    found = values(status)
    engine = segmenter.engine
    assert [found[k] for k in ("model", "resolution", "engine", "device", "precision")] == [
        "random", "160x120", "torch", "cpu", "fp32"
    ]  # fmt: skip
    assert (found["reason"], found["passed_over"]) == (engine.reason, "; ".join(engine.fallback_reasons))
    assert found["self_test"] == "passed"
    assert "pictures_at_once" not in found
    assert not [key for key in found if key.startswith("gpu")]


def test_an_engine_short_of_memory_says_how_many_pictures_it_takes(health: Health) -> None:
    engine = SimpleNamespace(
        name="torch",
        device="cpu",
        precision="fp32",
        reason="asked",
        fallback_reasons=("a", "b"),
        most_at_once=0,
    )
    health.segmenter = SimpleNamespace(spec=SimpleNamespace(name="m"), resolution_text="1x1", engine=engine)
    found = values(health.say().status[0])
    assert found["pictures_at_once"] == "0 of 1: a larger batch runs out of memory"
    assert found["passed_over"] == "a; b"
    engine.most_at_once = 1
    assert "pictures_at_once" not in values(health.say().status[0])


def test_the_period_is_followed(health: Health) -> None:
    periods_s = [t.timer_period_ns / 1e9 for t in health.node.timers]
    assert periods_s == [health.settings.value("diagnostics_period")]
    health.set(diagnostics_period=0.25)
    health.diagnostics.follow_period(0.25)
    timers = list(health.node.timers)
    assert [t.timer_period_ns / 1e9 for t in timers] == [0.25]
    health.diagnostics.follow_period(0.25)
    assert list(health.node.timers) == timers
    assert timers[0].clock.clock_type == ClockType.STEADY_TIME
    health.received.clear()
    wait_until(lambda: health._executor.spin_once(0.01) or health.received, "diagnostics of the timer", 3)


# The engine's verdict


@pytest.mark.parametrize(
    ("state", "error", "doing", "expected"),
    [
        ("unconfigured", "", "", (WARN, "node is unconfigured")),
        ("inactive", "", "loading", (WARN, "node is inactive")),
        ("active", "", "loading (2 s)", (WARN, "loading (2 s)")),
        ("active", "no driver", "loading (2 s)", (ERROR, "no driver; loading (2 s)")),
        ("inactive", "no driver", "", (ERROR, "no driver")),
        ("active", "", "", (OK, "segmenting")),
    ],
)
def test_engine(health: Health, state: str, error: str, doing: str, expected: tuple[bytes, str]) -> None:
    health.active()
    health.settings.lifecycle_state = state
    health.faults.remember("engine", Fault.MODEL_NOT_LOADED, error)
    health.doing = doing
    assert health.engine_says() == expected
    assert values(health.say().status[0])["last_error"] == error


def test_engine_whose_inferences_fail(health: Health) -> None:
    health.active()
    health.faults.remember("inference", Fault.INFERENCE_FAILED, "out of luck")
    health.faults.remember("node", Fault.CALLBACK_FAILED, "a callback failed")
    assert health.engine_says() == (OK, "segmenting")
    health.engine.count("callback_failures")
    assert health.engine_says() == (ERROR, "a callback failed")
    health.engine.count("failures")
    assert health.engine_says() == (ERROR, "out of luck")
    assert values(health.say().status[0])["last_error"] == "out of luck"
    health.faults.remember("engine", Fault.MODEL_NOT_LOADED, "gone")
    assert values(health.say().status[0])["last_error"] == "gone"


def test_engine_without_a_clock(health: Health) -> None:
    health.active()
    health.clock_missing = True
    assert health.engine_says() == (
        WARN,
        CLOCK_MISSING,
    )
    health.clock_missing = False
    assert health.engine_says() == (OK, "segmenting")


# The cameras' verdicts


@pytest.mark.parametrize("state", ["unconfigured", "inactive"])
def test_camera_of_a_node_that_is_not_active(health: Health, state: str) -> None:
    health.settings.lifecycle_state = state
    health.watch.topic_problem = "nothing publishes it"
    assert health.camera_says() == (OK, f"node is {state}")
    health.faults.remember("engine", Fault.MODEL_NOT_LOADED, "the driver is gone")
    assert health.camera_says() == (ERROR, f"node is {state}: the driver is gone")


def test_camera_while_a_model_loads_or_the_node_is_paused(health: Health) -> None:
    health.active(received_s=0.1)
    health.watch.topic_problem = "of no interest"
    health.doing = "loading"
    assert health.camera_says() == (OK, "waiting for the model")
    health.doing = ""
    health.enabled = False
    assert health.camera_says() == health.engine_says() == (OK, "paused by ~/enable")


def test_camera_whose_quality_of_service_does_not_fit(health: Health) -> None:
    statistics = health.active()
    statistics.count("qos_problems")
    health.faults.remember(TOPIC, Fault.IMAGE_REFUSED, "set this override")
    health.watch.topic_problem = "less to the point"
    assert health.camera_says() == (ERROR, "set this override")
    health.active(received_s=60.0)
    assert health.camera_says() == (WARN, "set this override")
    health.active(listening_s=None)
    assert health.camera_says() == (WARN, "less to the point")


def test_camera_in_trouble(health: Health) -> None:
    health.active()
    health.watch.topic_problem = "nothing publishes it"
    assert health.camera_says() == (ERROR, "nothing publishes it")
    assert values(health.say().status[1])["state"] == "no_images"
    stale_s = health.settings.value("stale_after")
    health.active(received_s=stale_s + 1)
    assert health.camera_says() == (WARN, "nothing publishes it")
    # One that has come since the watch looked last.
    health.active(received_s=stale_s / 2)
    assert health.camera_says() == (OK, "0.0 Hz")


def test_camera_with_a_rival(health: Health) -> None:
    health.active(received_s=0.1)
    health.watch._other_nodes = ("/other",)
    assert health.camera_says() == (
        WARN,
        "/other publishes the same results: subscribers receive both, mixed",
    )


def test_camera_that_waits_or_works(health: Health) -> None:
    health.active(listening_s=None)
    assert health.camera_says() == (OK, "idle: its results have no subscriber")
    statistics = health.active()
    assert health.camera_says() == (OK, "waiting for the first image")
    health.active(received_s=0.1)
    statistics._events["published"] = type(statistics._events["received"])(
        (time.monotonic() - 1 + number / 8, 1) for number in range(8)
    )
    level, text = health.camera_says()
    assert level == OK
    assert float(text.removesuffix(" Hz")) == pytest.approx(8, abs=0.5)
    assert len(text.removesuffix(" Hz").partition(".")[2]) == 1


WITHOUT = "images arrive, but no result has been published for "


def waits(health: Health, waiting_s: float) -> Statistics:
    statistics = health.active(received_s=0.1)
    statistics.pending_since_s = time.monotonic() - waiting_s
    return statistics


@pytest.mark.parametrize("reason", [None, "replaced", "unwanted"])
def test_images_come_and_the_engine_does_not_come_back(health: Health, reason: str | None) -> None:
    statistics = waits(health, 7.04)
    if reason:
        statistics.count(reason, 5)
    level, text = health.camera_says()
    assert level == ERROR
    assert text.startswith(f"{WITHOUT}7.0 s")
    assert text.endswith(": inference has not returned for 7.0 s")


@pytest.mark.parametrize(
    ("counts", "level", "words"),
    [
        ({"too_old": 9}, WARN, "9 were older than max_age; the engine is too slow for max_age"),
        ({"bad": 4, "replaced": 3}, ERROR, "4 could not be decoded: of the camera"),
        ({"failed": 4, "bad": 3, "unwanted": 9}, ERROR, "4 failed in inference: of inference"),
        ({"over_rate": 3}, ERROR, "3 were dropped (over_rate): of the camera"),
    ],
)
def test_images_come_and_nothing_goes_out(
    health: Health, counts: dict[str, int], level: bytes, words: str
) -> None:
    statistics = waits(health, 8.0)
    health.faults.remember(TOPIC, Fault.IMAGE_REFUSED, "of the camera")
    health.faults.remember("inference", Fault.INFERENCE_FAILED, "of inference")
    for reason, number in counts.items():
        statistics.count(reason, number)
    found, text = health.camera_says()
    assert found == level
    assert text.startswith(WITHOUT)
    assert text.endswith(f" s: {words}")


def test_images_that_come_too_old_say_that_clocks_differ(health: Health) -> None:
    statistics = waits(health, 8.0)
    health.set(max_age=0.5)
    statistics.count("too_old", 3)
    statistics.time({"transport": 400.0})
    assert health.camera_says()[1].endswith("the engine is too slow for max_age")
    for transport_ms in (400.0, 400.0, 9000.0):  # of few images
        statistics.time({"transport": transport_ms})
    assert health.camera_says()[1].endswith("the engine is too slow for max_age")
    statistics._durations_ms.clear()
    for transport_ms in (100_020.0, 100_020.0, 109_000.0):
        statistics.time({"transport": transport_ms})
    assert health.camera_says()[1].endswith(
        "they are 100.0 s old on arrival: synchronise the clocks of camera and node, or check the link"
    )


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
def test_how_long_nothing_may_go_out(
    health: Health,
    waiting_s: float,
    usual_ms: float | None,
    max_rate_hz: float,
    late: bool,
    stale_after_s: float,
) -> None:
    health.set(stale_after=stale_after_s, max_rate=max_rate_hz)
    statistics = waits(health, waiting_s)
    if usual_ms:
        statistics.time({"age": usual_ms})
    level, text = health.camera_says()
    assert (level, text.startswith(WITHOUT)) == ((ERROR, True) if late else (OK, False))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("bad", "of 10 images could not be decoded: of the camera"),
        ("failed", "of 10 images failed in inference: of inference"),
        ("too_old", "of 10 images were older than max_age: of the camera"),
    ],
)
def test_a_share_of_the_images_is_useless(health: Health, reason: str, words: str) -> None:
    statistics = health.active(received_s=0.1)
    health.faults.remember(TOPIC, Fault.IMAGE_REFUSED, "of the camera")
    health.faults.remember("inference", Fault.INFERENCE_FAILED, "of inference")
    statistics.count(reason)
    assert health.camera_says()[0] == OK
    statistics.count(reason)
    assert health.camera_says() == (WARN, f"2 {words}")


@pytest.mark.parametrize("account", ["lost_in_transport", "missing"])
def test_a_share_of_the_images_is_lost_in_transport(health: Health, account: str) -> None:
    statistics = health.active(received_s=0.1)
    statistics.count(account)
    assert health.camera_says()[0] == OK
    statistics.count(account)
    level, text = health.camera_says()
    assert level == WARN
    assert text.startswith("2 images were lost in transport, 10 received: ")
    assert text.endswith(("/transport.md", "docs/transport.md of canet_ros"))


def test_what_a_newer_image_overtook_is_not_lost_in_transport(health: Health) -> None:
    statistics = health.active(received_s=0.1)
    for name, number in (("lost", 9), ("lost_in_transport", 1), ("missing", 9)):
        statistics.count(name, number)
    assert health.camera_says()[0] == OK
    assert values(health.say().status[1])["lost_overtaken"] == "8"
    statistics.count("missing", 1)
    assert health.camera_says()[0] == WARN


def test_a_road_that_the_model_does_not_know(health: Health) -> None:
    health.active(received_s=0.1)
    health.camera.ood_monitor = SimpleNamespace(problem=lambda: "unlike", values=lambda: {"mean": 0.25})
    status = health.say().status[1]
    assert (status.level, status.message) == (WARN, "unlike")
    assert values(status)["confidence_mean"] == "0.250"


def test_a_gpus_memory_and_temperature(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    engine = SimpleNamespace(
        name="torch", device="cuda:1", precision="fp16", reason="", fallback_reasons=(), most_at_once=9
    )
    health.segmenter = SimpleNamespace(spec=SimpleNamespace(name="m"), resolution_text="", engine=engine)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not [key for key in values(health.say().status[0]) if key.startswith("gpu")]
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "mem_get_info",
        lambda device: (asked.append(device) or 3_400_000_400_000, 8_600_000_600_000),
    )
    monkeypatch.setattr(
        torch.cuda, "memory_reserved", lambda device: asked.append(device) or 2_300_000_300_000
    )
    monkeypatch.setattr(torch.cuda, "temperature", lambda device: asked.append(device) or 61)
    status = health.say().status[0]
    found = {key: value for key, value in values(status).items() if key.startswith("gpu")}
    assert found == {
        "gpu_memory_free_mb": "3400000",
        "gpu_memory_total_mb": "8600001",
        "gpu_memory_of_torch_mb": "2300000",
        "gpu_temperature_c": "61",
    }
    assert status.hardware_id == "cuda:1"
    assert set(asked) == {"cuda:1"}
    for error in (ImportError("no pynvml"), RuntimeError("no driver")):

        def refuse(device: str, error: Exception = error) -> int:
            raise error

        monkeypatch.setattr(torch.cuda, "temperature", refuse)
        found = [key for key in values(health.say().status[0]) if key.startswith("gpu")]
        assert len(found) == 3
