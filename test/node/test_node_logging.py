# SPDX-License-Identifier: Apache-2.0
"""What the node logs and reports of its surroundings: misspelt names, missing cameras, other transports, rivals."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters, SetParametersAtomically
from ros_graph import Graph, Process, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

from canet_ros.ros.fault_log import Fault

pytestmark = pytest.mark.ros
CAMERA, MASK = "/camera/image_raw", "/camera/segmentation/mask"


@pytest.fixture
def graph() -> Iterator[Graph]:
    """A new one for each test, because a client may wait for the node that the last test has ended."""
    graph = Graph()
    yield graph
    graph.close()


def warnings(process: Process, text: str) -> list[str]:
    return [line for line in process.output().splitlines() if "WARN" in line and text in line]


def wait_for_warning(process: Process, text: str) -> str:
    return wait_until(lambda: warnings(process, text), f"a warning {text!r}")[0]


# --- Parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (f"{MASK}.publisher.reliability", "relyable", "policy `reliability`: `relyable`"),
        (f"{CAMERA}.subscription.reliabilty", "reliable", f"did you mean qos_overrides.{CAMERA}.sub"),
    ],
)
def test_an_invalid_qos_override_is_refused_in_configure(
    graph: Graph, random_model: Path, name: str, value: object, reason: str
) -> None:
    with segmentation_node(random_model, **{f"qos_overrides.{name}": value}) as process:
        process.wait_for_output("not configured")
        assert reason in process.output()
        assert graph.state() == "unconfigured"
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        wait_until(
            lambda: health(diagnostics, "engine").get("fault") == Fault.NOT_CONFIGURED.value, "diagnostics"
        )
        assert "Traceback" not in process.output()


def test_parameters_of_a_start(graph: Graph, random_model: Path) -> None:
    """Unknown names are named with the closest one; an integer is a double; a dump can be loaded unchanged."""
    known = {
        f"qos_overrides.{CAMERA}.subscription.depth": 3,
        "start_type_description_service": True,
        "regions": "['0,0,32,24']",
        "max_rate": 5,
    }
    with segmentation_node(random_model, resolutoin="320x240", max_ages=1.0, **known) as process:
        line = wait_for_warning(process, "ignored parameters that this node does not have")
        assert line.endswith("max_ages: did you mean max_age?; resolutoin: did you mean resolution?")
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        diagnostics.wait_for(1)
        assert health(diagnostics, "engine")["unknown_parameters"] == "max_ages, resolutoin"

        def values_of(*names: str) -> list:
            request = GetParameters.Request(names=names)
            return graph.call(GetParameters, "/canet/get_parameters", request).values

        assert graph.set_parameter("overlay_alpha", 1).successful
        types = {value.type for value in values_of("max_rate", "overlay_alpha")}
        assert types == {ParameterType.PARAMETER_DOUBLE}

        wait_until(lambda: graph.get_parameter("class_names"), "the classes")
        names = graph.call(ListParameters, "/canet/list_parameters", ListParameters.Request()).result.names
        assert {"available_models", "class_names", "qos_overrides./camera/camera_info.subscription.depth"} < {
            *names
        }
        dump = [ParameterMessage(name=n, value=v) for n, v in zip(names, values_of(*names))]
        for service, kind in (
            ("set_parameters", SetParameters),
            ("set_parameters_atomically", SetParametersAtomically),
        ):
            answer = graph.call(kind, f"/canet/{service}", kind.Request(parameters=dump))
            results = answer.results if service == "set_parameters" else [answer.result]
            assert [result.reason for result in results if not result.successful] == []
        for name, value in (("available_models", ["mine"]), ("class_names", ["a"]), ("backbone", "resnet18")):
            assert not graph.set_parameter(name, value).successful


# --- Cameras ---------------------------------------------------------------------------------------------------------


def test_a_camera_that_is_missing_appears_falls_silent_and_resumes(graph: Graph, random_model: Path) -> None:
    def send() -> None:
        camera.send(picture(160, 120))
        time.sleep(0.05)

    def recoveries() -> list[str]:
        return [*warnings(process, ": publisher is back"), *warnings(process, ": images resumed")]

    graph.camera("/camera/image_rect")
    with segmentation_node(random_model, stale_after=0.5) as process:
        wait_for_warning(process, f"no publisher of {CAMERA}; existing image topics: /camera/image_rect")
        masks = graph.listen(Image, MASK)
        camera = graph.camera(CAMERA)
        graph.connect(camera, masks)
        wait_until(lambda: send() or recoveries(), "the camera to be seen")
        wait_for_warning(process, "although it has a publisher")
        wait_until(lambda: send() or len(recoveries()) == 2, "its return")
        camera.close()
        kinds = {"no publisher": "N", "although it has": "S", "publisher is back": "B", "images resumed": "R"}

        def history() -> str:
            lines = warnings(process, f"{CAMERA}: ")
            return "".join(next(kind for text, kind in kinds.items() if text in line) for line in lines)

        wait_until(lambda: history().endswith("N") and len(history()) > 1, "its end")
        graph.listen(DiagnosticArray, "/diagnostics").wait_for(4)
        # Each change once; the first again with another hint. On a busy machine images stop more often than here.
        assert re.fullmatch("N+(B|SR)(SR)+S?N", history()), process.output()


def test_a_topic_with_its_transport_given_twice(graph: Graph, random_model: Path) -> None:
    topic = f"{CAMERA}/compressed"
    graph.camera(topic, CompressedImage)
    twice = {"image_topics": f"['{topic}']", "image_transport": "compressed"}
    with segmentation_node(random_model, stale_after=0.5, **twice) as process:
        wait_for_warning(process, f"{topic} exists: set image_topics to {CAMERA}")
        assert not warnings(process, "to raw")


def test_own_results_are_not_offered_as_cameras(graph: Graph, random_model: Path) -> None:
    program = ("-m", "canet_ros.ros.node", "--ros-args", "-r", "/camera/vision/overlay:=/planner/view")
    with segmentation_node(random_model, program, stale_after=0.5, results_name="vision") as process:
        line = wait_for_warning(process, f"no publisher of {CAMERA}")
        assert "there are no image topics" in line
        graph.camera("/camera/image_rect")
        wait_until(lambda: graph.node.count_publishers("/planner/view"), "the remapped overlay")
    assert not [line for line in warnings(process, "") if "planner" in line or "vision" in line]


def test_rivals_depth_images_and_a_missing_clock(graph: Graph, random_model: Path) -> None:
    # A rival is reported of a camera that sends images.
    with segmentation_node(random_model, use_sim_time=True, stale_after=3600.0) as process:
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")

        def says(name: str, text: str) -> bool:
            return text in health(diagnostics, name).get("message", "")

        wait_for_warning(process, "/clock has no publisher")
        wait_until(lambda: says("engine", "/clock"), "diagnostics of the clock")

        masks, camera = graph.listen(Image, MASK), graph.camera(CAMERA)
        graph.connect(camera, masks)
        for topic, text in (
            (MASK, "/test publishes the same results"),
            (CAMERA, "their frames mix: /test, /test"),
        ):
            rival = graph.node.create_publisher(Image, topic, 1)
            assert CAMERA in wait_for_warning(process, text)
            wait_until(lambda text=text: says(CAMERA, text), "diagnostics of the rival")
            graph.node.destroy_publisher(rival)
            wait_until(lambda text=text: not says(CAMERA, text), "the rival's end")

        depth = Image(encoding="16UC1", height=4, width=6, step=12, data=bytes(48))

        def refused() -> list[str]:
            depth.header.stamp = graph.node.get_clock().now().to_msg()
            camera.publish(depth)
            time.sleep(0.05)
            return [line for line in process.output().splitlines() if "depth_topics" in line]

        (line,) = wait_until(refused, "a hint to depth_topics")
        assert "16UC1 is an encoding of depth" in line
        for _ in range(5):
            assert len(refused()) == 1


# --- Frames and transitions ------------------------------------------------------------------------------------------


def test_transitions_and_every_frame_at_level_debug(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model, log_level="debug", max_rate=1000.0, autostart=False) as process:
        graph.wait_for_state("unconfigured")
        response = graph.call(SetBool, "/canet/enable", SetBool.Request(data=True))
        assert response.success
        assert "the node is unconfigured" in response.message
        for transition in ("configure", "activate"):
            assert graph.change_state(transition)
        masks = graph.listen(Image, MASK)
        camera = graph.camera(CAMERA)
        graph.connect(camera, masks)
        stamp = camera.send(picture(160, 120))
        masks.wait_for_stamp(stamp)
        time_text = re.escape(f"{stamp.sec + stamp.nanosec / 1e9:.3f}")
        pattern = rf"DEBUG.*{CAMERA} {time_text}: published mask \(wait [\d.]+, .*inference [\d.]+"
        wait_until(lambda: re.search(pattern, process.output()), "the image's line")
        camera.publish(Image(encoding="purple8", height=1, width=1, step=1, data=[0]))
        process.wait_for_output("0.000: dropped: bad")

        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        diagnostics.wait_for(1)
        response = graph.call(SetBool, "/canet/enable", SetBool.Request(data=False))
        assert response.message == "paused"
        process.wait_for_output("paused by ~/enable")
        count = len(masks.messages)
        camera.send(picture(160, 120))
        process.wait_for_output("dropped: paused")
        for name in ("engine", CAMERA):
            wait_until(lambda name=name: "paused by ~/enable" in health(diagnostics, name)["message"], name)
        wait_until(lambda: health(diagnostics, CAMERA)["dropped_paused"] == "1", "a drop")
        assert len(masks.messages) == count
        graph.call(SetBool, "/canet/enable", SetBool.Request(data=True))
        process.wait_for_output("resumed by ~/enable")
        masks.wait_for_stamp(camera.send(picture(160, 120)))

        for transition in ("deactivate", "cleanup", "shutdown"):
            assert graph.change_state(transition)
        steps = [line.rpartition(": ")[2] for line in process.output().splitlines() if " -> " in line]
        assert steps == [
            "unconfigured -> inactive",
            "inactive -> active",
            "active -> inactive",
            "inactive -> unconfigured",
            "unconfigured -> finalized",
        ]
        wait_until(lambda: health(diagnostics, "engine")["lifecycle_state"] == "finalized", "the last state")


def test_a_retrained_model_is_loaded_again_and_the_camera_s_engine_is_logged(
    graph: Graph, random_model: Path
) -> None:
    with segmentation_node(random_model, resolution="camera") as process:
        process.wait_for_output("resolution, engine and precision are chosen at the first image")
        assert "none yet" not in process.output()
        graph.connect(graph.camera(CAMERA), graph.listen(Image, MASK))
        assert process.output().count("on cpu, onnxruntime fp32 (") == 1
        for touched, loads in ((False, 1), (True, 2)):
            assert graph.change_state("deactivate")
            if touched:
                weights = random_model / "weights.safetensors"
                weights.write_bytes(weights.read_bytes())
            assert graph.change_state("activate")
            graph.connect(graph.camera(CAMERA), graph.listen(Image, MASK))
            assert process.output().count("loaded in") == loads
