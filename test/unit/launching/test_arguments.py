# SPDX-License-Identifier: Apache-2.0
"""Checks of the launch files before they start anything; needs neither launch nor ROS."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from canet_ros import cli
from canet_ros.launching.arguments import (
    given_parameters,
    launch_arguments,
    unknown_arguments,
)
from canet_ros.launching.parameter_files import (
    parameters_in_file,
    section_problem,
)
from canet_ros.launching.recording import canet_record_command, folder_problem, ros2_bag_problem

NAMES = [argument.name for argument in launch_arguments()]


# --- Launch arguments ------------------------------------------------------------------------------------------------


def test_every_misspelt_argument_gets_a_suggestion() -> None:
    slips = {slip for name in NAMES for slip in (name[1:], name[:-1], name + "s")} - set(NAMES)
    problems = unknown_arguments([*slips, "launch-prefix", "ros_namespace", "emulate_tty"], NAMES)
    assert len(problems) == len(slips)
    for slip, problem in zip(slips, problems):
        assert problem.startswith(f"launch argument {slip} has no effect: did you mean ")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"resolution": "abc"}, "resolution 'abc': expected WIDTHxHEIGHT"),
        ({"device": "gpu"}, "device: expected auto, cpu, cuda"),
        ({"image_transport": "theora"}, "image_transport: expected one of raw, compressed, ffmpeg, foxglove"),
        ({"rotations": "[45]"}, "rotations: expected 0, 90, 180 or 270, got 45"),
        ({"regions": "['0,0,10']"}, "regions: region '0,0,10': expected x,y,width,height"),
        ({"groups": "{a: [road"}, "groups: expected names with their classes"),
        ({"max_rate": ".inf"}, "max_rate: expected a number from 0 to 1000, got inf"),
        ({"max_pixels": "0"}, "max_pixels: expected an integer from 1 to 1000000000, got 0"),
        ({"image_topics": "[]"}, "image_topics: expected a list of texts"),
        ({"image_topics": "['/robot/x', 'y']"}, "image_topics: /robot/x and /robot/y would both publish"),
        ({"image_topics": "['/a/x']", "regions": "['', '']"}, "regions has 2 entries for 1 cameras"),
        (
            {"cloud_topics": "['/a']", "depth_topics": "['/b']"},
            "cloud_topics and depth_topics name /a and /b",
        ),
        ({"ground_group": "a", "groups": "{b: [road]}"}, "ground_group a is not in groups, which has b"),
        (
            {"ground_range": "50.0", "ground_resolution": "0.01"},
            "ground_range is 5000 times ground_resolution",
        ),
        ({"engine": "torch", "precision": "int8"}, "precision int8: engine torch does not support it"),
        ({"engine": "openvino", "device": "cuda:1"}, "engine openvino runs only on the CPU"),
    ],
)
def test_arguments_that_the_node_would_refuse_are_refused(given: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        given_parameters(given, node="/robot/canet")


def file_of(folder: Path, text: str) -> Path:
    file = folder / "my.yaml"
    file.write_text(text)
    return file


def test_without_a_parameter_file_defaults_are_part_of_the_check(tmp_path: Path) -> None:
    two = {"regions": "['', '0,0,64,64']", "rotations": "[]"}
    file = file_of(tmp_path, "/**: {ros__parameters: {image_topics: [/a/x, /b/x]}}")
    assert given_parameters(two, file).values == {"regions": ("", "0,0,64,64"), "rotations": (0,)}
    with pytest.raises(ValueError, match="regions has 2 entries for 1 cameras"):
        given_parameters(two)


def test_cameras_of_a_parameter_file(tmp_path: Path) -> None:
    text = "/**: {ros__parameters: {image_topics: [/a/x], results_name: vision}}"
    _, (camera,), transport = given_parameters({"results_name": "masks"}, file_of(tmp_path, text))
    assert (camera.image, camera.results, transport) == ("/a/x", "/a/masks", "raw")
    for values, words in (
        ("image_transport: jpg", "params_file: .*my.yaml: image_transport: expected one of raw"),
        ("image_topics: [/a/x, /a/y]", "would both publish under"),
    ):
        with pytest.raises(ValueError, match=words):
            given_parameters({}, file_of(tmp_path, f"/**: {{ros__parameters: {{{values}}}}}"))


# --- Parameter files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "node"), [("canet", "/front/canet"), ("/front", "/canet")])
def test_a_section_that_applies_to_the_node_is_suggested(section: str, node: str) -> None:
    text = f"{section}: {{ros__parameters: {{max_rate: 3.0}}}}"
    problem = section_problem(text, node)
    assert f"no section applies to {node}" in problem
    proposed = re.findall(r"did you mean (\S+) \(or (\S+) for", problem)[0]
    for name in proposed:
        assert parameters_in_file(text.replace(section, name, 1), node) == {"max_rate": 3.0}
    assert "its sections are none" in section_problem("{}", node)


# --- Recording -------------------------------------------------------------------------------------------------------


def workspace(folder: Path, *packages: str, ros2: bool = True) -> dict[str, str]:
    """The environment of a ROS installation that has these packages."""
    for package in packages:
        marker = folder / "share/ament_index/resource_index/packages" / package
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    (folder / "bin").mkdir(parents=True)
    if ros2:
        (folder / "bin/ros2").write_text("#!/bin/sh\n")
        (folder / "bin/ros2").chmod(0o755)
    return {"AMENT_PREFIX_PATH": str(folder), "PATH": str(folder / "bin"), "ROS_DISTRO": "jazzy"}


def test_without_ros2_bag_canet_record_is_used(tmp_path: Path) -> None:
    without_bag = workspace(tmp_path / "a", "rosbag2_storage_mcap")
    assert "sudo apt install ros-jazzy-ros2bag" in ros2_bag_problem(without_bag)
    without_command = workspace(tmp_path / "b", "ros2bag", "rosbag2_storage_mcap", ros2=False)
    assert "ros2 bag is not installed" in ros2_bag_problem(without_command)
    without_mcap = workspace(tmp_path / "c", "ros2bag")
    assert "ros-jazzy-rosbag2-storage-mcap" in ros2_bag_problem(without_mcap)
    complete = workspace(tmp_path / "d", "ros2bag", "rosbag2_storage_mcap")
    assert ros2_bag_problem(complete) == ""
    command = canet_record_command(["/a/image_raw", "/tf_static"], str(tmp_path / "drive"), True)
    assert command[1:4] == ["-m", "canet_ros.cli", "record"]
    given = cli._parse(command[3:], "record")
    assert (given.out, given.topics) == (tmp_path / "drive", ["/a/image_raw", "/tf_static"])
    assert given.use_sim_time
    assert cli._parse(canet_record_command(["/a"], "", False)[3:], "record").out is None


def test_unusable_record_paths(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    assert folder_problem(str(tmp_path / "drive")) == folder_problem("") == ""
    assert "already exists" in folder_problem(str(tmp_path / "old"))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert "already exists" in folder_problem(str(tmp_path / "dangling"))
    assert "does not exist" in folder_problem(str(tmp_path / "no" / "drive"))
    assert "record_path" in folder_problem("/proc/drive")
