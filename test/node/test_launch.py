# SPDX-License-Identifier: Apache-2.0
"""The launch files under `ros2 launch`, with the package built by colcon and its workspace sourced.

They load, offer every parameter with a description, start the node with exactly the given parameters, and start RViz
and the recorder with files that fit the cameras. RViz and ros2 bag themselves are not tested: stand-ins store their
command lines.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("launch_ros")

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch.launch_description_sources import AnyLaunchDescriptionSource
from ros_graph import Graph, Process, wait_until
from waiting import WAIT_S

from canet_ros.launching.arguments import launch_arguments

pytestmark = pytest.mark.launch

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
    """Run `ros2 launch` on one of our files or on a path, then end it as by Ctrl-C and expect a clean exit."""
    target = [str(file)] if isinstance(file, Path) else ["canet_ros", file]
    process = Process([ROS2, "launch", *target, *arguments], environment)
    try:
        yield process
    finally:
        # Not SIGTERM, on which launch leaves its processes running.
        process.signal(signal.SIGINT)
        process.wait(WAIT_S)
        ended_well = "has died" not in process.output()
        left = survivors(process)
        process.close()
    assert ended_well
    assert left == []


def survivors(launch: Process) -> list[str]:
    """Command lines of the processes of a launch that are still running."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[3] == str(launch.pid) and fields[0] != "Z" and stat.parent.name != str(launch.pid):
                found.append((stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def small(model: Path) -> list[str]:
    return [f"model:={model}", "engine:=onnxruntime", "device:=cpu", "precision:=fp32"]


@pytest.mark.parametrize("name", sorted(path.name for path in (SHARE / "launch").iterdir()))
def test_every_launch_file_offers_every_argument_with_a_description(name: str) -> None:
    description = AnyLaunchDescriptionSource(
        str(SHARE / "launch" / name)
    ).try_get_launch_description_without_context()
    offered = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(offered) >= {argument.name for argument in launch_arguments()}
    assert all(argument.description for argument in offered.values())


def test_given_arguments_override_the_parameter_file_and_defaults_do_not(
    graph: Graph, random_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    sections = {
        "/**": {"ros__parameters": {"jpeg_quality": 33, "overlay_alpha": 0.25, "autostart": False}},
        "/robot/canet": {"ros__parameters": {"max_rate": 7.0, "max_age": 1.0, "model": str(random_model)}},
    }
    file.write_text(yaml.safe_dump(sections))
    # max_age is given with its default value, which still overrides the file.
    arguments = ["namespace:=robot", "overlay_alpha:=0.75", "max_age:=0", "image_topics:=['/a/x', '/b/x']"]
    with launched("canet.launch.py", f"params_file:={file}", *arguments):
        node = "/robot/canet"
        expected = {
            "jpeg_quality": 33,
            "max_rate": 7.0,
            "model": str(random_model),
            "overlay_alpha": 0.75,
            "max_age": 0.0,
            "image_topics": ["/a/x", "/b/x"],
            "backbone": "mobilenet_v2",
        }
        assert {name: graph.get_parameter(name, node) for name in expected} == expected
        assert graph.state(node) == "unconfigured"


def ended_by_itself(file: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Output of a launch that must fail and leave no process running."""
    process = Process([ROS2, "launch", "canet_ros", file, *arguments], environment)
    try:
        assert process.wait(WAIT_S) != 0
        wait_until(lambda: not survivors(process), "the end of all its processes")
        return process.output()
    finally:
        process.close()


@pytest.mark.parametrize(
    ("file", "argument", "complaint"),
    [
        ("canet.launch.py", "max_rate:=fast", "max_rate: expected a number"),
        ("demo.launch.py", "params_file:=/nowhere/my.yaml", "params_file: /nowhere/my.yaml is not a file"),
        ("canet.launch.py", "rviz_config:=/nowhere/my.rviz", "rviz_config: /nowhere/my.rviz is not a file"),
        ("four_cameras.launch.xml", "resolution:=abc", "resolution 'abc': expected WIDTHxHEIGHT"),
        (
            "demo.launch.py",
            "engine:=torch precision:=int8",
            "precision int8: engine torch does not support it",
        ),
        ("canet.launch.py", "record:=true record_path:=/nowhere/drive", "cannot record: "),
    ],
)
def test_wrong_arguments_end_the_launch_with_a_reason(file: str, argument: str, complaint: str) -> None:
    output = ended_by_itself(file, *argument.split(), environment={"PATH": "/usr/bin:/bin"})
    assert complaint in output
    assert "process started" not in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_a_launch_that_is_killed(number: signal.Signals, random_model: Path) -> None:
    process = Process([ROS2, "launch", "canet_ros", "demo.launch.py", *small(random_model)])
    try:
        process.wait_for_output("results under")
        assert len(survivors(process)) >= 2
        process.signal(number)
        process.wait(WAIT_S)
        wait_until(lambda: not survivors(process), "the end of all its processes")
    finally:
        process.close()


def test_misspelt_arguments_and_parameters_get_suggestions(tmp_path: Path) -> None:
    file = tmp_path / "slip.yaml"
    file.write_text("/canet: {ros__parameters: {max_rat: 3.0}}")
    with launched("canet.launch.py", "resolutoin:=320x240", f"params_file:={file}") as process:
        process.wait_for_output("max_rat: did you mean max_rate?")
        before = process.output().partition("process started")[0]
    assert before.count("launch argument resolutoin has no effect: did you mean resolution?") == 1


@pytest.mark.parametrize("file", ["canet.launch.py", "demo.launch.py", "nav2_example.launch.py"])
def test_listing_arguments_imports_neither_rclpy_nor_torch(file: str) -> None:
    # What `ros2 launch --show-args` calls; the ros2 command itself imports rclpy on some distributions.
    code = (
        "import sys; from ros2launch.api import print_arguments_of_launch_file as show;"
        "show(launch_file_path=sys.argv[1]);"
        "print('imported:', sorted({'rclpy', 'torch', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SHARE / "launch" / file)], capture_output=True, text=True, check=True
    )
    assert "'image_topics':" in done.stdout
    assert "imported: []" in done.stdout


# --- A node that dies ------------------------------------------------------------------------------------------------


def node_of(process: Process) -> int:
    """Process id of the node that the launch started last."""
    started = r"segmentation_node-\d+\]: process started with pid \[(\d+)\]"
    return int(wait_until(lambda: re.findall(started, process.output()), "the node's start")[-1])


@pytest.mark.parametrize("file", ["demo.launch.py", "four_cameras.launch.xml"])
def test_a_node_that_dies_makes_the_launch_fail(file: str, random_model: Path) -> None:
    given = ["rviz:=false", *(["respawn:=false"] if file != "demo.launch.py" else []), *small(random_model)]
    process = Process([ROS2, "launch", "canet_ros", file, *given])
    try:
        os.kill(node_of(process), signal.SIGKILL)
        assert process.wait(WAIT_S) == 1
        assert "the segmentation node ended with status -9" in process.output()
        assert survivors(process) == []
    finally:
        process.close()


def test_a_node_that_dies_is_restarted_and_one_that_is_terminated_ends_the_launch(random_model: Path) -> None:
    process = Process([ROS2, "launch", "canet_ros", "canet.launch.py", "max_rate:=5", *small(random_model)])
    try:
        first = node_of(process)
        os.kill(first, signal.SIGKILL)
        second = wait_until(lambda: node_of(process) != first and node_of(process), "another node")
        wait_until(lambda: "results under" in process.output().rpartition("process started")[2], "its start")
        os.kill(second, signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        process.close()


def test_processes_of_other_launch_files_keep_running_when_the_node_dies(
    tmp_path: Path,
) -> None:
    """A user's launch file with its own argument and process, that includes ours."""
    file = tmp_path / "robot.launch.xml"
    file.write_text(
        '<launch><arg name="resolutions" default="x"/><executable cmd="sleep 600" name="driver"/>'
        '<include file="$(find-pkg-share canet_ros)/launch/canet.launch.py"/></launch>'
    )
    process = Process([ROS2, "launch", str(file), "resolutions:=y", "use_respawn:=false"])
    try:
        os.kill(node_of(process), signal.SIGKILL)
        process.wait_for_output("the segmentation node ended with status -9")
        assert any("sleep 600" in line for line in survivors(process))
        assert "has no effect" not in process.output()
        process.signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 1
        assert survivors(process) == []
    finally:
        process.close()


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """An environment in which `rviz2` and `ros2 bag record` store their arguments and files in STAND_IN_FOLDER."""
    script = f"""#!{sys.executable}
import os, pathlib, shutil, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
folder = pathlib.Path(os.environ["STAND_IN_FOLDER"]) / pathlib.Path(sys.argv[0]).name
folder.mkdir()
for argument in sys.argv[1:]:
    if pathlib.Path(argument).is_file():
        shutil.copy(argument, folder)
(folder / "arguments").write_text("\\n".join(sys.argv[1:]))
signal.sigtimedwait([signal.SIGINT], 600)
"""
    prefix = tmp_path / "prefix"
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    markers = [index / package for package in ("rviz2", "ros2bag", "rosbag2_storage_mcap")]
    for path in (*markers, prefix / "lib" / "rviz2" / "rviz2", prefix / "bin" / "ros2"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    kept = tmp_path / "kept"
    kept.mkdir()
    return {
        "PATH": f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": f"{prefix}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}",
        "STAND_IN_FOLDER": str(kept),
    }


def test_rviz_and_recorder_get_the_topics_of_the_cameras(
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
        "use_rviz:=true",
        "record:=true",
        f"record_path:={tmp_path / 'drive'}",
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
    assert command[-2:] == ["--output", str(tmp_path / "drive")]
    latched = yaml.safe_load((kept / "ros2" / "latched_topics.yaml").read_text())
    assert set(latched) == {"/a/segmentation/label_info", "/robot/b/segmentation/label_info", "/tf_static"}
