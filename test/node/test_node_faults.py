# SPDX-License-Identifier: Apache-2.0
"""Faults of engines, injected where the library begins: each is said in log and diagnostics, and the node goes on.

What a GPU without memory or a driver that hangs does is imitated by ``faulty_node.py``; no GPU is needed.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_graph import Camera, Graph, Listener, Process, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

pytestmark = pytest.mark.ros
CAMERA, MASK = "/camera/image_raw", "/camera/segmentation/mask"
FAULTY_NODE = (str(Path(__file__).parent / "faulty_node.py"),)
OK, WARN, ERROR = (
    str(level[0]) for level in (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR)
)


@dataclass
class Faulty:
    """A node whose engine can be told to fail."""

    process: Process
    diagnostics: Listener
    file: Path

    def fault(self, text: str) -> None:
        self.file.write_text(text)

    def wait_for(
        self,
        name: str,
        level: str,
        text: str,
        timeout_s: float = 20.0,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        def there() -> bool:
            meanwhile()
            values = health(self.diagnostics, name)
            return bool(values) and values["level"] == level and text in values["message"]

        try:
            wait_until(there, f"{text!r} at level {level}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {health(self.diagnostics, name)}") from None


@pytest.fixture(scope="module")
def fault_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "fault"


@pytest.fixture(scope="module")
def shared(random_model: Path, graph: Graph, fault_file: Path) -> Iterator[Process]:
    fault_file.write_text("none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANET_TEST_FAULT", str(fault_file))
        patch.setenv("CANET_ROS_CACHE", str(fault_file.parent / "cache"))
        with segmentation_node(
            random_model,
            FAULTY_NODE,
            autostart=False,
            image_topics=f"['{CAMERA}', '/rear/image_raw']",
            stale_after=0.5,
            inference_timeout=1.0,
        ) as process:
            graph.wait_for_state("unconfigured")
            yield process


@pytest.fixture
def node(graph: Graph, shared: Process, fault_file: Path) -> Iterator[Faulty]:
    """Configured; its log is that of this module so far."""
    fault_file.write_text("none")
    assert graph.change_state("configure")
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    diagnostics.wait_for(1)
    yield Faulty(shared, diagnostics, fault_file)
    fault_file.write_text("none")
    graph.clear()
    graph.change_state("deactivate")
    graph.change_state("cleanup")
    assert graph.state() == "unconfigured"


@pytest.fixture
def working(graph: Graph, node: Faulty) -> tuple[Faulty, Camera, Listener]:
    """Active, and segmenting a camera's images."""
    assert graph.change_state("activate")
    masks = graph.listen(Image, MASK)
    camera = graph.camera(CAMERA)
    graph.connect(camera, masks)
    return node, camera, masks


# --- Loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "text"), [("slow", "loading the model"), ("build", "building the engine, this takes minutes")]
)
def test_the_node_answers_while_a_model_is_loaded(graph: Graph, node: Faulty, fault: str, text: str) -> None:
    node.fault(fault)
    start_s = time.monotonic()
    assert graph.change_state("activate")
    node.wait_for("engine", WARN, text)
    assert time.monotonic() - start_s < 1.0
    node.wait_for("engine", WARN, "s elapsed")
    assert graph.state() == "active"
    assert graph.call(SetBool, "/canet/enable", SetBool.Request(data=True)).success
    assert graph.set_parameter("overlay_alpha", 0.4).successful
    assert "deactivate canet first" in graph.set_parameter("resolution", "96x64").reason
    assert "waiting for the model" in health(node.diagnostics, CAMERA)["message"]
    # Back and forth without the model, then it comes.
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        start_s = time.monotonic()
        assert graph.change_state(transition), transition
        assert time.monotonic() - start_s < 1.0
    masks = graph.listen(Image, MASK)
    camera = graph.camera(CAMERA)
    node.fault("none")
    graph.connect(camera, masks)
    assert health(node.diagnostics, "engine")["doing"] == ""


def test_another_model_is_wanted_while_one_is_loaded(graph: Graph, node: Faulty) -> None:
    node.fault("slow")
    assert graph.change_state("activate")
    assert graph.change_state("deactivate")
    assert graph.set_parameter("resolution", "96x64").successful
    assert graph.change_state("activate")
    node.fault("none")
    wait_until(
        lambda: health(node.diagnostics, "engine").get("resolution") == "96x64", "the other resolution"
    )
    assert graph.change_state("deactivate")
    assert graph.set_parameter("resolution", "").successful


@pytest.mark.parametrize(
    ("fault", "text"), [("broken", "the driver is too old"), ("surprise", "cannot open shared object file")]
)
def test_a_model_that_cannot_be_loaded_leaves_the_node_inactive(
    graph: Graph, node: Faulty, fault: str, text: str
) -> None:
    node.fault(fault)
    assert graph.change_state("activate")
    graph.wait_for_state("inactive")
    node.wait_for("engine", ERROR, text)
    assert "deactivating the node" in node.process.output()
    assert text in node.process.output()
    node.fault("none")
    assert graph.change_state("activate")
    graph.connect(graph.camera(CAMERA), graph.listen(Image, MASK))
    assert health(node.diagnostics, "engine")["level"] == OK


# --- Inference -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("raise", "the engine broke"),
        ("nan", "not a number"),
        ("shape", "(1, 119, 160) where uint8 (1, 120, 160) was expected"),
        ("class", "holds class 200; the model has 11 classes"),
    ],
)
def test_an_answer_that_is_none_costs_its_frame(
    working: tuple[Faulty, Camera, Listener], fault: str, text: str
) -> None:
    node, camera, masks = working
    failed = int(health(node.diagnostics, CAMERA)["dropped_failed"])
    count = len(masks.messages)
    node.fault(f"{fault} 1")
    camera.send(picture(160, 120))
    node.wait_for("engine", ERROR, text)
    assert text in node.process.output()
    assert int(health(node.diagnostics, CAMERA)["dropped_failed"]) == failed + 1
    assert len(masks.messages) == count
    masks.wait_for_stamp(camera.send(picture(160, 120)))


def test_a_thread_that_dies_is_started_again(working: tuple[Faulty, Camera, Listener]) -> None:
    node, camera, masks = working
    node.fault("exit 1")
    camera.send(picture(160, 120))
    node.wait_for("engine", ERROR, "a library that ends the process")
    assert "the inference thread crashed and was restarted" in node.process.output()
    masks.wait_for_stamp(camera.send(picture(160, 120)))


def test_out_of_memory_makes_smaller_batches(graph: Graph, working: tuple[Faulty, Camera, Listener]) -> None:
    node, camera, masks = working
    rear, rear_masks = graph.camera("/rear/image_raw"), graph.listen(Image, "/rear/segmentation/mask")
    graph.connect(rear, rear_masks)
    node.fault("memory")

    def limited() -> bool:
        image = picture(160, 120)
        stamps = [source.send(image) for source in (camera, rear)]
        for listener, stamp in zip((masks, rear_masks), stamps):
            listener.wait_for_stamp(stamp)
        return "pictures_at_once" in health(node.diagnostics, "engine")

    wait_until(limited, "both images in one batch")
    assert health(node.diagnostics, "engine")["pictures_at_once"].startswith("1 of 2: ")
    assert "not 2 pictures at once, but 1" in node.process.output()


def test_an_inference_that_hangs_is_left_and_the_engine_started_again(
    graph: Graph, working: tuple[Faulty, Camera, Listener]
) -> None:
    node, camera, masks = working
    count = len(masks.messages)
    node.fault("hang")
    start_s = time.monotonic()
    camera.send(picture(160, 120))
    node.wait_for("engine", ERROR, "inference has not returned")
    assert 1.0 < time.monotonic() - start_s < 4.0
    assert "restarting the engine (1 of 3)" in node.process.output()
    node.file.unlink()  # the old thread comes back from its inference, and must not publish
    node.fault("none")
    graph.connect(camera, masks)
    assert len({(m.header.stamp.sec, m.header.stamp.nanosec) for m in masks.messages[count:]}) == len(
        masks.messages[count:]
    )
    node.wait_for("engine", OK, "segmenting")
    assert int(health(node.diagnostics, "engine")["engine_restarts"]) >= 1


def test_an_engine_that_always_hangs_is_given_up(
    graph: Graph, working: tuple[Faulty, Camera, Listener]
) -> None:
    node, camera, _ = working
    node.fault("hang")

    def given_up() -> bool:
        camera.send(picture(160, 120))
        return health(node.diagnostics, "engine")["lifecycle_state"] == "inactive"

    wait_until(given_up, "the node to give up", 30)
    node.wait_for("engine", ERROR, "after 3 restarts of the engine")


def test_deactivating_a_node_that_hangs_takes_two_seconds(
    graph: Graph, working: tuple[Faulty, Camera, Listener]
) -> None:
    node, camera, masks = working
    assert graph.set_parameter("inference_timeout", 60.0).successful
    try:
        node.fault("hang")

        def said() -> bool:
            camera.send(picture(160, 120))
            return "has not returned" in health(node.diagnostics, CAMERA)["message"]

        wait_until(said, "diagnostics to say so")
        assert health(node.diagnostics, CAMERA)["level"] == ERROR
        start_s = time.monotonic()
        assert graph.change_state("deactivate")
        assert time.monotonic() - start_s < 3.5
        assert graph.change_state("activate")
        node.fault("none")
        graph.connect(camera, masks)
    finally:
        assert graph.set_parameter("inference_timeout", 1.0).successful


def test_a_process_that_was_stopped_has_not_hung(
    graph: Graph, working: tuple[Faulty, Camera, Listener]
) -> None:
    node, camera, masks = working
    restarts = health(node.diagnostics, "engine")["engine_restarts"]
    node.fault("hang")
    camera.send(picture(160, 120))
    time.sleep(0.2)
    node.process.signal(signal.SIGSTOP)
    time.sleep(2)
    node.process.signal(signal.SIGCONT)
    node.fault("none")
    graph.connect(camera, masks)
    count = len(node.diagnostics.messages)
    node.diagnostics.wait_for(count + 3)
    assert health(node.diagnostics, "engine")["engine_restarts"] == restarts


# --- Images come and nothing goes out --------------------------------------------------------------------------------


def test_images_that_are_all_too_old_are_a_warning(
    graph: Graph, working: tuple[Faulty, Camera, Listener]
) -> None:
    node, camera, _ = working
    assert graph.set_parameter("max_age", 0.000001).successful
    try:
        end_s = time.monotonic() + 1.5
        while time.monotonic() < end_s:
            camera.send(picture(160, 120))
            time.sleep(0.05)
        node.wait_for(CAMERA, WARN, "images arrive, but no result has been published", 1)
        assert "older than max_age" in health(node.diagnostics, CAMERA)["message"]
    finally:
        assert graph.set_parameter("max_age", 0.0).successful


@pytest.mark.parametrize(
    ("fault", "encoding", "text"), [("raise", "bgr8", "the engine broke"), ("none", "purple8", "purple8")]
)
def test_images_of_which_none_succeeds_are_an_error(
    working: tuple[Faulty, Camera, Listener], fault: str, encoding: str, text: str
) -> None:
    node, camera, _ = working
    node.fault(fault)

    def send() -> None:
        message = Image(height=120, width=160, encoding=encoding, step=480, data=np.ones(57600, np.uint8))
        message.header.stamp = camera.now()
        camera.publish(message)
        time.sleep(0.3)  # ten failures start the engine again, three restarts end in a node that gives up

    node.wait_for(CAMERA, ERROR, text, meanwhile=send)
    assert "no result has been published" in health(node.diagnostics, CAMERA)["message"]
