# SPDX-License-Identifier: Apache-2.0
"""What was misspelt, mistaken or is missing around the node is said, once, with what may be meant."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters, SetParametersAtomically
from ros_graph import Graph, Process, health, picture, segmentation_node, wait_until
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool

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


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (
            f"qos_overrides.{MASK}.publisher.reliability",
            "relyable",
            "expected one of system_default, reliable",
        ),
        (f"qos_overrides.{CAMERA}.subscription.reliability", "relyable", "expected one of system_default"),
        (
            f"qos_overrides.{CAMERA}.subscription.depth",
            "many",
            "expected an integer from 1 to 10000, got 'many'",
        ),
        (f"qos_overrides.{CAMERA}.subscription.depth", 0, "expected an integer from 1 to 10000, got 0"),
        (f"qos_overrides.{CAMERA}.subscription.reliabilty", "reliable", "expected one of history, depth"),
        (f"qos_overrides.{CAMERA}.subscriber.depth", 3, "expected publisher or subscription"),
        ("qos_overrides./camera/image_rw.subscription.depth", 3, f"did you mean qos_overrides.{CAMERA}.sub"),
        (f"qos_overrides.{CAMERA}", 3, "expected qos_overrides.<topic>"),
    ],
)
def test_a_misspelt_qos_override_is_refused_in_configure(
    graph: Graph, random_model: Path, name: str, value: object, reason: str
) -> None:
    with segmentation_node(random_model, **{name: value}) as process:
        process.wait_for_output("not configured")
        assert reason in process.output()
        assert graph.state() == "unconfigured"
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        wait_until(
            lambda: reason in health(diagnostics, "engine").get("message", ""), "diagnostics to say so"
        )
        assert "Traceback" not in process.output()


def test_overrides_that_nobody_declared_are_named_once(graph: Graph, random_model: Path) -> None:
    meant = {f"qos_overrides.{CAMERA}.subscription.depth": 3, "start_type_description_service": True}
    with segmentation_node(random_model, resolutoin="320x240", max_ages=1.0, **meant) as process:
        graph.wait_for_state("active")
        line = wait_for_warning(process, "ignored parameters that this node does not have")
        assert "max_ages (did you mean max_age?), resolutoin (did you mean resolution?)" in line
        assert "qos_overrides" not in line
        assert "start_type" not in line
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        diagnostics.wait_for(1)
        assert health(diagnostics, "engine")["unknown_parameters"] == "max_ages, resolutoin"


def test_a_camera_that_is_missing_appears_falls_silent_and_is_back(graph: Graph, random_model: Path) -> None:
    def a_picture() -> None:
        camera.send(picture(160, 120))
        time.sleep(0.05)

    def recoveries() -> list[str]:
        return [*warnings(process, ": publisher is back"), *warnings(process, ": images resumed")]

    graph.camera("/camera/image_rect")
    with segmentation_node(random_model, stale_after=0.5) as process:
        wait_for_warning(process, f"no publisher of {CAMERA}; existing image topics: /camera/image_rect")
        said = len(warnings(process, f"{CAMERA}: "))
        masks = graph.listen(Image, MASK)
        camera = graph.camera(CAMERA)
        graph.connect(camera, masks)
        wait_until(lambda: a_picture() or recoveries(), "the camera to be seen")
        wait_for_warning(process, "although it has a publisher")
        wait_until(lambda: a_picture() or len(recoveries()) == 2, "its return")
        camera.close()
        wait_until(lambda: len(warnings(process, f"{CAMERA}: ")) == said + 4, "its end")
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        diagnostics.wait_for(3)
        assert len(warnings(process, f"{CAMERA}: ")) == said + 4, process.output()


def test_the_other_transport_is_named(graph: Graph, random_model: Path) -> None:
    graph.camera(f"{CAMERA}/compressed", CompressedImage)
    with segmentation_node(random_model, stale_after=0.5) as process:
        wait_for_warning(process, "set image_transport to compressed")
    with segmentation_node(random_model, stale_after=0.5, image_topics=f"['{CAMERA}/compressed']") as process:
        line = wait_for_warning(process, "carries sensor_msgs/msg/CompressedImage")
        assert f"set image_topics to {CAMERA} and image_transport to compressed" in line


def test_a_transport_without_images_is_named_once(graph: Graph, random_model: Path) -> None:
    graph.camera(f"{CAMERA}/zstd", CompressedImage)
    with segmentation_node(random_model, stale_after=0.5, image_topics=f"['{CAMERA}/zstd']") as process:
        line = wait_for_warning(process, f"{CAMERA}/zstd carries raw images packed by zstd_image_transport")
        assert "image_transport to compressed" not in line
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        diagnostics.wait_for(3)
        assert len(warnings(process, "packed by zstd")) == 1


def test_depth_given_as_a_camera_is_refused_with_a_hint(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model) as process:
        graph.wait_for_state("active")
        masks, camera = graph.listen(Image, MASK), graph.camera(CAMERA)
        graph.connect(camera, masks)
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


def test_the_transport_given_twice_is_told_at_once(graph: Graph, random_model: Path) -> None:
    topic = f"{CAMERA}/compressed"
    graph.camera(topic, CompressedImage)
    twice = {"image_topics": f"['{topic}']", "image_transport": "compressed"}
    with segmentation_node(random_model, stale_after=0.5, **twice) as process:
        wait_for_warning(process, f"set image_topics to {CAMERA} and leave image_transport at compressed")
        wait_for_warning(process, f"{topic} exists: set image_topics to {CAMERA}")
        assert not warnings(process, "to raw")


def test_a_compressed_topic_of_another_name_comes_by_the_remapping_that_is_told(
    graph: Graph, random_model: Path
) -> None:
    topic = "/pylon/image_compressed"
    camera = graph.camera(topic, CompressedImage)
    with segmentation_node(random_model, stale_after=0.5, image_topics=f"['{topic}']") as process:
        line = wait_for_warning(process, "set image_transport to compressed, and start with --ros-args")
    rule = re.search(r"--ros-args -r (\S+)", line)
    assert rule
    program = ("-m", "canet_ros.ros.node", "--ros-args", "-r", rule[1])
    followed = {"image_topics": f"['{topic}']", "image_transport": "compressed"}
    with segmentation_node(random_model, program, stale_after=0.5, **followed) as process:
        masks = graph.listen(Image, "/pylon/segmentation/mask")
        graph.connect(camera, masks)
        assert not warnings(process, "no publisher of")


def test_own_results_are_not_offered_as_cameras(graph: Graph, random_model: Path) -> None:
    program = ("-m", "canet_ros.ros.node", "--ros-args", "-r", "/camera/vision/overlay:=/planner/view")
    with segmentation_node(random_model, program, stale_after=0.5, results_name="vision") as process:
        line = wait_for_warning(process, f"no publisher of {CAMERA}")
        assert "there are no image topics" in line
        graph.camera("/camera/image_rect")
        wait_until(lambda: graph.node.count_publishers("/planner/view"), "the remapped overlay")
    assert not [line for line in warnings(process, "") if "planner" in line or "vision" in line]


def test_another_node_with_the_same_results_is_named(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model) as process:
        graph.wait_for_state("active")
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        graph.camera(CAMERA)
        rival = graph.node.create_publisher(Image, MASK, 1)
        line = wait_for_warning(process, "/test publishes the same results")
        assert CAMERA in line
        wait_until(lambda: "/test" in health(diagnostics, CAMERA).get("message", ""), "diagnostics to say so")
        graph.node.destroy_publisher(rival)
        wait_until(lambda: "/test" not in health(diagnostics, CAMERA)["message"], "the rival's end")


def test_sim_time_without_a_clock_is_a_warning(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model, use_sim_time=True) as process:
        wait_for_warning(process, "/clock has no publisher")
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        wait_until(
            lambda: "/clock" in health(diagnostics, "engine").get("message", ""), "diagnostics to say so"
        )


def type_of(graph: Graph, name: str) -> int:
    request = GetParameters.Request(names=[name])
    return int(graph.call(GetParameters, "/canet/get_parameters", request).values[0].type)


def test_one_is_a_number_and_stays_one(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model, max_rate=5):
        graph.wait_for_state("active")
        assert type_of(graph, "max_rate") == ParameterType.PARAMETER_DOUBLE
        assert graph.set_parameter("overlay_alpha", 1).successful
        assert type_of(graph, "overlay_alpha") == ParameterType.PARAMETER_DOUBLE
        assert graph.get_parameter("overlay_alpha") == 1.0


def test_debug_has_a_line_for_every_image(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model, log_level="debug", max_rate=1000.0) as process:
        graph.wait_for_state("active")
        masks = graph.listen(Image, MASK)
        camera = graph.camera(CAMERA)
        graph.connect(camera, masks)
        stamp = camera.send(picture(160, 120))
        masks.wait_for_stamp(stamp)
        time_text = f"{stamp.sec + stamp.nanosec / 1e9:.3f}"
        pattern = rf"DEBUG.*{CAMERA} {re.escape(time_text)}: published mask \(wait [\d.]+, .*inference [\d.]+"
        wait_until(lambda: re.search(pattern, process.output()), "the image's line")
        bad = Image(encoding="purple8", height=1, width=1, step=1, data=[0])
        camera.publish(bad)
        process.wait_for_output("0.000: dropped: bad")
        graph.call(SetBool, "/canet/enable", SetBool.Request(data=False))
        process.wait_for_output("paused by ~/enable")
        camera.send(picture(160, 120))
        process.wait_for_output("dropped: paused")
        graph.call(SetBool, "/canet/enable", SetBool.Request(data=True))
        process.wait_for_output("resumed by ~/enable")


def test_a_dump_of_the_parameters_can_be_loaded_unchanged(graph: Graph, random_model: Path) -> None:
    """As ``ros2 param dump`` and ``ros2 param load`` do it; real changes of read-only values are still refused."""
    with segmentation_node(random_model, regions="['0,0,32,24']", max_rate=5) as process:
        process.wait_for_output("loaded in")
        wait_until(lambda: graph.get_parameter("class_names"), "the classes")
        names = graph.call(ListParameters, "/canet/list_parameters", ListParameters.Request()).result.names
        values = graph.call(GetParameters, "/canet/get_parameters", GetParameters.Request(names=names)).values
        assert {"available_models", "class_names", "qos_overrides./camera/camera_info.subscription.depth"} < {
            *names
        }
        dump = [ParameterMessage(name=name, value=value) for name, value in zip(names, values)]
        for service, kind in (
            ("set_parameters", SetParameters),
            ("set_parameters_atomically", SetParametersAtomically),
        ):
            answer = graph.call(kind, f"/canet/{service}", kind.Request(parameters=dump))
            results = answer.results if service == "set_parameters" else [answer.result]
            assert [result.reason for result in results if not result.successful] == []
        for name, value in (
            ("available_models", ["mine"]),
            ("class_names", ["road"]),
            ("backbone", "resnet18"),
        ):
            assert not graph.set_parameter(name, value).successful


def test_transitions_are_logged_and_enable_says_that_the_node_is_not_active(
    graph: Graph, random_model: Path
) -> None:
    with segmentation_node(random_model, autostart=False) as process:
        graph.wait_for_state("unconfigured")
        answer = graph.call(SetBool, "/canet/enable", SetBool.Request(data=True))
        assert answer.success
        assert "the node is unconfigured" in answer.message
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        paused = (str(DiagnosticStatus.OK[0]), "paused by ~/enable")

        def says(name: str) -> tuple[str, str]:
            status = health(diagnostics, name)
            return status.get("level", ""), status.get("message", "")

        for transition in ("configure", "activate", "deactivate", "cleanup"):
            assert graph.change_state(transition)
            if transition == "activate":
                answer = graph.call(SetBool, "/canet/enable", SetBool.Request(data=False))
                assert answer.message == "paused"
                process.wait_for_output("loaded in")
                wait_until(
                    lambda: {says(name) for name in ("engine", CAMERA)} == {paused}, "both to be paused"
                )
        steps = [
            "unconfigured -> inactive",
            "inactive -> active",
            "active -> inactive",
            "inactive -> unconfigured",
        ]
        found = [line.rpartition(": ")[2] for line in process.output().splitlines() if " -> " in line]
        assert found == steps


def test_the_engine_for_the_camera_is_logged_once_it_is_known(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model, resolution="camera") as process:
        process.wait_for_output("resolution, engine and precision are chosen at the first image")
        assert "none yet" not in process.output()
        graph.connect(graph.camera(CAMERA), graph.listen(Image, MASK))
        assert process.output().count("on cpu, torch fp32 (") == 1


def test_a_model_that_was_trained_again_is_loaded_again(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model) as process:
        wait_until(lambda: process.output().count("loaded in") == 1, "the model")
        for touched, loads in ((False, 1), (True, 2)):
            assert graph.change_state("deactivate")
            if touched:
                weights = random_model / "weights.safetensors"
                weights.write_bytes(weights.read_bytes())
            assert graph.change_state("activate")
            graph.connect(graph.camera(CAMERA), graph.listen(Image, MASK))
            assert process.output().count("loaded in") == loads


def test_after_a_shutdown_the_state_is_finalized(graph: Graph, random_model: Path) -> None:
    with segmentation_node(random_model) as process:
        graph.wait_for_state("active")
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        assert graph.change_state("shutdown")
        wait_until(
            lambda: health(diagnostics, "engine").get("lifecycle_state") == "finalized", "the state finalized"
        )
        process.signal(signal.SIGTERM)
        assert process.wait(2) == 0
