# SPDX-License-Identifier: Apache-2.0
"""Faults of engines, injected by ``faulty_node.py``: each is reported, and the node continues or ends with its status.

No GPU is needed.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_graph import Camera, Graph, Listener, Process, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from canet_ros.launching.transport import unused_domain_id
from canet_ros.ros.fault_log import Fault
from canet_ros.ros.run_node import STATUS_BROKEN

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

    def wait_for(self, name: str, level: str, kind: Fault, text: str) -> None:
        """Wait until a status has this level, this kind of last fault and this text in its message."""

        def found() -> bool:
            values = health(self.diagnostics, name)
            fits = values.get("level") == level and values["fault"] == kind.value
            return fits and text in values["message"]

        wait_until(found, f"{kind} {text!r} at level {level}")


@pytest.fixture(scope="module")
def shared(random_model: Path, graph: Graph, fault_file: Path) -> Iterator[Process]:
    topics = f"['{CAMERA}', '/rear/image_raw']"
    parameters = {"image_topics": topics, "stale_after": 0.5, "inference_timeout": 600.0}
    with segmentation_node(random_model, FAULTY_NODE, autostart=False, **parameters) as process:
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


def hang(node: Faulty, camera: Camera) -> Time:
    """Send a frame whose inference lasts until the fault ends; its stamp."""
    hung = node.process.output().count("hanging")
    node.fault("hang")
    stamp = camera.send(picture(160, 120))
    wait_until(lambda: node.process.output().count("hanging") > hung, "the inference")
    return stamp


# --- Loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "text"), [("slow", "loading the model"), ("build", "building the engine, this takes minutes")]
)
def test_the_node_responds_while_a_model_is_loaded(graph: Graph, node: Faulty, fault: str, text: str) -> None:
    node.fault(fault)
    assert graph.change_state("activate")
    node.wait_for("engine", WARN, Fault.NONE, text)
    assert graph.state() == "active"
    assert graph.call(SetBool, "/canet/enable", SetBool.Request(data=True)).success
    assert graph.set_parameter("overlay_alpha", 0.4).successful
    assert "deactivate canet first" in graph.set_parameter("resolution", "96x64").reason
    assert health(node.diagnostics, CAMERA)["state"] == "no_model_yet"
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        assert graph.change_state(transition), transition
    masks = graph.listen(Image, MASK)
    camera = graph.camera(CAMERA)
    node.fault("none")
    graph.connect(camera, masks)
    wait_until(lambda: health(node.diagnostics, "engine")["doing"] == "", "the end of the activity")


def test_a_model_that_cannot_be_loaded_leaves_the_node_inactive(graph: Graph, node: Faulty) -> None:
    faults = {"broken": "the driver is too old", "surprise": "cannot open shared object file"}
    for fault, text in faults.items():
        node.fault(fault)
        assert graph.change_state("activate")
        graph.wait_for_state("inactive")
        node.wait_for("engine", ERROR, Fault.MODEL_NOT_LOADED, text)
        assert text in node.process.output()
    node.fault("none")
    assert graph.change_state("activate")
    graph.connect(graph.camera(CAMERA), graph.listen(Image, MASK))
    node.wait_for("engine", OK, Fault.NONE, "")


# --- Inference -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("shape", "(1, 119, 160) where uint8 (1, 120, 160) was expected"),
        ("exit", "a library that ends the process"),
    ],
)
def test_an_invalid_result_costs_its_frame_alone(
    working: tuple[Faulty, Camera, Listener], fault: str, text: str
) -> None:
    node, camera, masks = working
    failed = int(health(node.diagnostics, CAMERA)["dropped_failed"])
    count = len(masks.messages)
    node.fault(f"{fault} 1")
    camera.send(picture(160, 120))
    node.wait_for("engine", ERROR, Fault.INFERENCE_FAILED, text)
    assert int(health(node.diagnostics, CAMERA)["dropped_failed"]) == failed + 1
    assert len(masks.messages) == count
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


@pytest.mark.parametrize(
    ("fault", "text"),
    [("hang", "inference has not returned"), ("raise", "consecutive inferences failed: EngineError")],
)
def test_a_broken_engine_ends_the_process(
    random_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str, text: str
) -> None:
    file = tmp_path / "fault"
    file.write_text("none")
    monkeypatch.setenv("CANET_TEST_FAULT", str(file))
    monkeypatch.setenv("ROS_DOMAIN_ID", str(unused_domain_id()))  # without the other tests' node
    graph = Graph()
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    masks, camera = graph.listen(Image, MASK), graph.camera(CAMERA)
    try:
        with segmentation_node(random_model, FAULTY_NODE, inference_timeout=3.0) as process:
            graph.connect(camera, masks)
            count = len(masks.messages)
            file.write_text(fault)
            wait_until(lambda: camera.send(picture(160, 120)) and process.status() is not None, "the end")
            assert process.status() == STATUS_BROKEN
            assert len(masks.messages) == count
            assert "Traceback" not in process.output()
            (line,) = [line for line in process.output().splitlines() if "FATAL" in line]
            assert text in line
            wait_until(
                lambda: health(diagnostics, "engine")["fault"] == Fault.ENGINE_BROKEN.value, "the fault"
            )
            assert health(diagnostics, "engine")["level"] == ERROR
            # Its successor has no rival: a process that vanishes counts for another 20 s.
            wait_until(lambda: not graph.node.count_publishers(MASK), "it to leave the graph", 10)
    finally:
        graph.close()


def test_a_process_that_was_stopped_has_not_hung(
    graph: Graph, working: tuple[Faulty, Camera, Listener]
) -> None:
    node, camera, masks = working
    assert graph.set_parameter("inference_timeout", 5.0).successful
    hang(node, camera)
    node.process.signal(signal.SIGSTOP)
    time.sleep(6)
    node.process.signal(signal.SIGCONT)
    node.diagnostics.wait_for_new(2)  # in which the watchdog has looked
    node.fault("none")
    graph.connect(camera, masks)
    assert graph.set_parameter("inference_timeout", 600.0).successful
    assert node.process.status() is None


def test_inference_takes_the_newest_frame_and_the_older_ones_are_counted(
    working: tuple[Faulty, Camera, Listener],
) -> None:
    node, camera, masks = working
    node.diagnostics.wait_for_new(2)
    before = health(node.diagnostics, CAMERA)

    def counts() -> list[int]:
        now = health(node.diagnostics, CAMERA)
        return [int(now[name]) - int(before[name]) for name in ("received", "published", "dropped_replaced")]

    masks.messages.clear()
    first = last = hang(node, camera)
    for number in range(5):
        last = camera.send(picture(160, 120))
        wait_until(lambda number=number: counts() == [number + 2, 0, number], "the frame to be received")
    node.fault("none")
    masks.wait_for_stamp(last)
    assert [mask.header.stamp for mask in masks.messages] == [first, last]
    wait_until(lambda: counts() == [6, 2, 4], "every frame to be accounted for")
