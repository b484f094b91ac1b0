# SPDX-License-Identifier: Apache-2.0
"""The launch files under `ros2 launch`, with the package built by colcon and its workspace sourced.

Asserted: they load, offer every parameter with a description, start the node with what was given and with nothing
that was not, start RViz and the recorder with files that fit the cameras. Not asserted: that RViz and ros2 bag do
what they are told: stand-ins take their places here and keep their command lines.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("launch_ros")

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch.launch_description_sources import AnyLaunchDescriptionSource
from ros_graph import Graph, Process, wait_until

from canet_ros.launching.arguments import launch_arguments

pytestmark = [pytest.mark.ros, pytest.mark.launch]

try:
    SHARE = Path(get_package_share_directory("canet_ros"))
except PackageNotFoundError:
    pytest.skip("canet_ros is not built with colcon, or its workspace not sourced", allow_module_level=True)
ROS2 = shutil.which("ros2")
if ROS2 is None:
    pytest.skip("there is no ros2 command", allow_module_level=True)


@contextlib.contextmanager
def launched(
    file: str | Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[Process]:
    """`ros2 launch` of one of our files, or of a file by its path; ended as by Ctrl-C, upon which all must end well."""
    target = [str(file)] if isinstance(file, Path) else ["canet_ros", file]
    process = Process([ROS2, "launch", *target, *arguments], environment)
    try:
        yield process
    finally:
        # Not SIGTERM: upon that, launch leaves its processes behind.
        process.signal(signal.SIGINT)
        process.wait(30)
        ended_well = "has died" not in process.output()
        process.close()
    assert ended_well


def small(model: Path) -> list[str]:
    return [f"model:={model}", "engine:=torch", "device:=cpu", "precision:=fp32"]


@pytest.mark.parametrize("name", sorted(path.name for path in (SHARE / "launch").iterdir()))
def test_every_launch_file_offers_every_argument_with_a_description(name: str) -> None:
    description = AnyLaunchDescriptionSource(
        str(SHARE / "launch" / name)
    ).try_get_launch_description_without_context()
    offered = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(offered) >= {argument.name for argument in launch_arguments()}
    assert all(argument.description for argument in offered.values())


def test_arguments_of_canet_launch_are_the_one_list() -> None:
    source = AnyLaunchDescriptionSource(str(SHARE / "launch" / "canet.launch.py"))
    offered = source.try_get_launch_description_without_context().get_launch_arguments()
    assert [argument.name for argument in offered] == [argument.name for argument in launch_arguments()]
    for argument, ours in zip(offered, launch_arguments()):
        assert argument.default_value[0].text == ours.default if ours.default else True
        assert argument.choices == (list(ours.choices) or None)


def test_node_comes_up_with_the_given_parameters(graph: Graph, random_model: Path) -> None:
    arguments = ["image_topics:=['/front/image_raw', '/rear/image_raw']", "resolution:=128x96", "max_rate:=5"]
    with launched("canet.launch.py", *arguments, *small(random_model)):
        graph.wait_for_state("active")
        assert list(graph.get_parameter("image_topics")) == ["/front/image_raw", "/rear/image_raw"]
        assert graph.get_parameter("model") == str(random_model)
        assert graph.get_parameter("resolution") == "128x96"
        assert graph.get_parameter("max_rate") == 5.0
        assert graph.get_parameter("backbone") == "mobilenet_v2"


def test_defaults_do_not_override_the_parameter_file_and_given_arguments_do(
    graph: Graph, random_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    sections = {
        "/**": {"ros__parameters": {"jpeg_quality": 33, "overlay_alpha": 0.25, "autostart": False}},
        "/robot/canet": {"ros__parameters": {"max_rate": 7.0, "max_age": 1.0, "model": str(random_model)}},
    }
    file.write_text(yaml.safe_dump(sections))
    # max_age is given at its default: what was given wins, whatever it is.
    arguments = [f"params_file:={file}", "namespace:=robot", "overlay_alpha:=0.75", "max_age:=0.0"]
    with launched("canet.launch.py", *arguments):
        node = "/robot/canet"
        assert graph.get_parameter("jpeg_quality", node) == 33
        assert graph.get_parameter("max_rate", node) == 7.0
        assert graph.get_parameter("model", node) == str(random_model)
        assert graph.get_parameter("overlay_alpha", node) == 0.75
        assert graph.get_parameter("max_age", node) == 0.0
        assert graph.state(node) == "unconfigured"


def test_two_includes_in_one_launch_file_keep_apart(graph: Graph, tmp_path: Path) -> None:
    slow = tmp_path / "slow.yaml"
    slow.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"max_rate": 2.0, "autostart": False}}}))
    include = '<include file="$(find-pkg-share canet_ros)/launch/canet.launch.py">{}</include>'
    both = tmp_path / "both.launch.xml"
    both.write_text(
        "<launch>"
        + include.format('<arg name="namespace" value="one"/><arg name="autostart" value="False"/>')
        + include.format(f'<arg name="namespace" value="two"/><arg name="params_file" value="{slow}"/>')
        + "</launch>"
    )
    with launched(both):
        assert graph.get_parameter("max_rate", "/one/canet") == 0.0
        assert graph.get_parameter("max_rate", "/two/canet") == 2.0
        assert graph.state("/two/canet") == "unconfigured"


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("backbone:=resnet19", "resnet19"),
        ("max_rate:=fast", "max_rate: expected a number"),
        ("image_topics:=/camera/image_raw", "image_topics: expected a list"),
        ("params_file:=/nowhere/my.yaml", "params_file: /nowhere/my.yaml is not a file"),
    ],
)
def test_wrong_arguments_end_the_launch_with_a_reason(argument: str, complaint: str) -> None:
    process = Process([ROS2, "launch", "canet_ros", "canet.launch.py", argument])
    try:
        assert process.wait(20) != 0
        assert complaint in process.output()
        assert "segmentation_node" not in process.output()
    finally:
        process.close()


def test_demo_shows_the_street_without_rviz(graph: Graph, random_model: Path) -> None:
    from sensor_msgs.msg import Image

    with launched("demo.launch.py", "rviz:=false", *small(random_model)):
        graph.wait_for_state("active")
        masks = graph.listen(Image, "/camera/segmentation/mask")
        assert masks.wait_for(3, 30)[0].encoding == "mono8"
        graph.clear()


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """An environment in which `rviz2` and `ros2 bag record` keep their arguments and files in STAND_IN_FOLDER."""
    script = f"""#!{sys.executable}
import os, pathlib, shutil, sys, time
folder = pathlib.Path(os.environ["STAND_IN_FOLDER"]) / pathlib.Path(sys.argv[0]).name
folder.mkdir()
for argument in sys.argv[1:]:
    if pathlib.Path(argument).is_file():
        shutil.copy(argument, folder)
(folder / "profile").write_text(os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE", ""))
(folder / "arguments").write_text("\\n".join(sys.argv[1:]))
try:
    time.sleep(60)
except KeyboardInterrupt:
    pass
"""
    prefix = tmp_path / "prefix"
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "rviz2"
    for path in (marker, prefix / "lib" / "rviz2" / "rviz2", prefix / "bin" / "ros2"):
        path.parent.mkdir(parents=True)
        path.write_text(script)
        path.chmod(0o755)
    kept = tmp_path / "kept"
    kept.mkdir()
    return {
        "PATH": f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": f"{prefix}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}",
        "STAND_IN_FOLDER": str(kept),
    }


def test_rviz_and_recorder_are_set_to_the_cameras(
    graph: Graph, stand_ins: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "two.yaml"
    parameters = {
        "image_topics": ["/a/image_raw", "b/image_raw"],
        "image_transport": "compressed",
        "autostart": False,
    }
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    arguments = [
        f"params_file:={file}",
        "namespace:=robot",
        "rviz:=true",
        "record:=true",
        "record_path:=drive",
    ]
    kept = Path(stand_ins["STAND_IN_FOLDER"])
    with launched("canet.launch.py", *arguments, environment=stand_ins):
        for name in ("rviz2", "ros2"):
            wait_until((kept / name / "arguments").exists, f"the command line of {name}")
        assert graph.state("/robot/canet") == "unconfigured"
    view = yaml.safe_load((kept / "rviz2" / "four_cameras.rviz").read_text())
    topics = [display["Topic"]["Value"] for display in view["Visualization Manager"]["Displays"]]
    assert topics == ["/a/segmentation/overlay", "/robot/b/segmentation/overlay"]
    command = (kept / "ros2" / "arguments").read_text().splitlines()
    assert command[:3] == ["bag", "record", "--regex"]
    assert "/a/image_raw/compressed|" in command[3]
    assert "|/robot/b/segmentation/mask/compressed|" in command[3]
    assert command[-2:] == ["--output", "drive"]
    latched = yaml.safe_load((kept / "ros2" / "latched_topics.yaml").read_text())
    assert set(latched) == {"/a/segmentation/label_info", "/robot/b/segmentation/label_info", "/tf_static"}


@pytest.mark.parametrize("profile_of_the_user", ["", "/home/me/my_profile.xml"])
def test_processes_get_our_transport_profile_unless_the_user_has_one(
    graph: Graph, stand_ins: dict[str, str], profile_of_the_user: str
) -> None:
    variables = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    environment = {**stand_ins, **dict.fromkeys(variables, profile_of_the_user)}
    kept = Path(stand_ins["STAND_IN_FOLDER"])
    with launched("canet.launch.py", "autostart:=false", "rviz:=true", environment=environment):
        wait_until((kept / "rviz2" / "arguments").exists, "RViz's stand-in")
        assert graph.state() == "unconfigured"
    profile = (kept / "rviz2" / "profile").read_text()
    assert profile == profile_of_the_user or (not profile_of_the_user and profile.startswith(str(SHARE)))
