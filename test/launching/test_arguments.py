# SPDX-License-Identifier: Apache-2.0
"""What the launch files check before they start anything; without launch and without ROS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from canet_ros import cli
from canet_ros.launching import recording
from canet_ros.launching.arguments import (
    OWN_ARGUMENTS,
    launch_arguments,
    misspelt_arguments,
    misspelt_parameters,
    parameter_files,
    parameters_in_file,
    read_parameter_file,
)
from canet_ros.launching.ending import ending_with_parent, ends_with_this_process
from canet_ros.launching.nearest import did_you_mean, nearest
from canet_ros.launching.parameter_table import PARAMETERS
from canet_ros.launching.recording import canet_record_command, recording_problem

NAMES = [argument.name for argument in launch_arguments()]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resolutoin", "resolution"),
        ("image_topic", "image_topics"),
        ("max_rates", "max_rate"),
        ("backbon", "backbone"),
        ("recrod_path", "record_path"),
        ("sensor_kit", ""),
    ],
)
def test_nearest(name: str, meant: str) -> None:
    assert nearest(name, NAMES) == meant
    assert did_you_mean(name, NAMES) == (f": did you mean {meant}?" if meant else "")


# --- Launch arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelling_of_every_argument_is_found_whoever_included_us(name: str) -> None:
    middle = len(name) // 2
    swapped = name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]
    slips = {slip for slip in (swapped, name[:-1], name + "s") if slip not in NAMES}
    if len(name) < 5:  # of two four-letter names one may be the other's slip: a person must be asked
        slips = {slip for slip in slips if nearest(slip, NAMES, 0.8)}
    for slip in slips:
        (problem,) = misspelt_arguments({slip: "1"}, NAMES, ours_alone=False)
        assert slip in problem
        assert "did you mean" in problem


def test_arguments_of_an_including_launch_file_are_not_misspelt() -> None:
    given = {"sensor_kit": "r2", "map": "x.yaml", "slam": "True", "autostarts": "1", "autostart": "true"}
    assert misspelt_arguments(given, NAMES, ours_alone=False) == []


def test_where_no_other_launch_file_is_there_every_unknown_argument_is_told() -> None:
    given = {"sensor_kit": "r2", "resolutoin": "320x240", "resolution": "480x360"}
    robot, slip = misspelt_arguments(given, NAMES, ours_alone=True)
    assert robot == "launch argument sensor_kit does nothing"
    assert slip == "launch argument resolutoin does nothing: did you mean resolution?"


def test_what_launch_keeps_for_itself_is_known() -> None:
    of_launch = {"launch-prefix": "gdb", "ros_namespace": "/x", "ros_params": [("a", 1)], "emulate_tty": "1"}
    assert misspelt_arguments(of_launch, NAMES, ours_alone=True) == []


# --- Parameter files -------------------------------------------------------------------------------------------------


def test_a_misspelt_parameter_is_told_with_its_section_and_what_was_meant() -> None:
    text = "/canet: {ros__parameters: {resolutoin: 320x240, jpeg_quality: 70, colour: red}}"
    slip, unknown = misspelt_parameters(text, "/canet")
    assert slip == "resolutoin under /canet is no parameter of /canet: did you mean resolution?"
    assert unknown == "colour under /canet is no parameter of /canet"


def test_known_parameters_are_not_told() -> None:
    known = "".join(f"    {spec.name}: 1\n" for spec in PARAMETERS)
    more = "    use_sim_time: true\n    qos_overrides./a/image_raw.subscription.depth: 3\n"
    nested = "    qos_overrides:\n      /a/image_raw: {subscription: {depth: 3}}\n"
    assert misspelt_parameters(f"/canet:\n  ros__parameters:\n{known}{more}", "/canet") == []
    assert misspelt_parameters(f"/canet:\n  ros__parameters:\n{nested}", "/canet") == []


def test_a_pattern_may_hold_parameters_of_other_nodes() -> None:
    text = "/**: {ros__parameters: {map_frame: map, robot: r2, maxrate: 3.0}}"
    (problem,) = misspelt_parameters(text, "/canet")
    assert problem.startswith("maxrate under /** ")


def test_what_is_there_twice_is_told() -> None:
    text = "canet:\n  ros__parameters: {max_rate: 3.0, max_rate: 4.0}\ncanet:\n  ros__parameters: {max_age: 1.0}\n"
    assert misspelt_parameters(text, "/canet") == [
        "line 2: max_rate is there a second time: give it once",
        "line 3: canet is there a second time: give it once",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a {ros__parameters: {max_rate: 3.0}}\n/canet: *a", "aliases"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a\tb: {", "not YAML"),
    ],
)
def test_yaml_that_ros_does_not_take_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        misspelt_parameters(text, "/canet")


def test_parameter_files_are_bounded(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match="are the most for parameters"):
        read_parameter_file(large)
    with pytest.raises(ValueError, match="not a file"):
        read_parameter_file(Path("/dev/zero"))
    assert parameter_files(["node", "--ros-args", "--params-file", "a.yaml"]) == [Path("a.yaml")]


def test_sections_of_other_nodes_alone_are_told() -> None:
    text = "/front/cannet: {ros__parameters: {max_rate: 3.0}}"
    (problem,) = misspelt_parameters(text, "/front/canet")
    assert "no section is for /front/canet" in problem
    assert "did you mean /front/cannet?" in problem
    assert misspelt_parameters("{}", "/canet")[0].endswith("its sections are none")


@pytest.mark.parametrize("text", ["/**: {ros__parameters: [1, 2]}", "/**: {ros__parameters: fast}"])
def test_parameters_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected parameters under"):
        parameters_in_file(text, "/canet")


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


@pytest.fixture
def complete(tmp_path: Path) -> dict[str, str]:
    return workspace(tmp_path / "ros", "ros2bag", "rosbag2_storage_mcap")


def test_a_recording_can_begin(complete: dict[str, str], tmp_path: Path) -> None:
    assert recording_problem(str(tmp_path / "drive"), complete) == ""
    assert recording_problem("", complete) == ""


def test_without_ros2_bag_canet_record_takes_its_place(tmp_path: Path) -> None:
    for package in ("rosbags", "mcap"):
        pytest.importorskip(package)
    without_bag = workspace(tmp_path / "a", "rosbag2_storage_mcap")
    assert recording_problem(str(tmp_path / "drive"), without_bag) == ""
    assert "already exists" in recording_problem(str(tmp_path), without_bag)
    command = canet_record_command(["/a/image_raw", "/tf_static"], str(tmp_path / "drive"), True)
    assert command[1:4] == ["-m", "canet_ros.cli", "record"]
    given = cli._parse(command[3:], "record")
    assert (given.out, given.topics) == (tmp_path / "drive", ["/a/image_raw", "/tf_static"])
    assert given.use_sim_time
    assert cli._parse(canet_record_command(["/a"], "", False)[3:], "record").out is None


def test_without_any_recorder_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_PACKAGES_OF_CANET_RECORD", ("rosbags_that_is_not_there",))
    assert "needs rosbags_that_is_not_there" in recording_problem("", workspace(tmp_path / "none"))
    without_bag = workspace(tmp_path / "a", "rosbag2_storage_mcap")
    assert "sudo apt install ros-jazzy-ros2bag" in recording_problem("", without_bag)
    without_command = workspace(tmp_path / "b", "ros2bag", "rosbag2_storage_mcap", ros2=False)
    assert "ros2 bag is not installed" in recording_problem("", without_command)
    without_mcap = workspace(tmp_path / "c", "ros2bag")
    assert "ros-jazzy-rosbag2-storage-mcap" in recording_problem("", without_mcap)


def test_places_where_no_bag_can_be_made(complete: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    assert "already exists" in recording_problem(str(tmp_path / "old"), complete)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert "already exists" in recording_problem(str(tmp_path / "dangling"), complete)
    assert "does not exist" in recording_problem(str(tmp_path / "no" / "drive"), complete)
    assert "record_path" in recording_problem("/proc/drive", complete)


def test_a_folder_that_may_not_be_written_to(complete: dict[str, str], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "not writable" in recording_problem(str(closed / "drive"), complete)


def test_a_disk_that_is_nearly_full(
    complete: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(recording, "MIN_FREE_BYTES", 2 * free_bytes)
    assert "nearly full" in recording_problem(str(tmp_path / "drive"), complete)


# --- Nothing outlives a launch ---------------------------------------------------------------------------------------

OUTLIVES = """
import subprocess, sys, os
from canet_ros.launching.ending import ending_with_parent, ends_with_this_process
child = (
    "from canet_ros.launching.ending import end_with_parent; end_with_parent();"
    "print('ready', flush=True); import time; time.sleep(60)"
)
environment = {**os.environ, **ends_with_this_process()}
ours = subprocess.Popen([sys.executable, "-c", child], env=environment, stdout=subprocess.PIPE)
ours.stdout.readline()
others = subprocess.Popen(ending_with_parent(["sh", "-c", "echo ready; exec sleep 60"]), stdout=subprocess.PIPE)
others.stdout.readline()
print(ours.pid, others.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_programs_end_with_a_process_that_is_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", OUTLIVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    children = [int(pid) for pid in process.stdout.readline().split()]
    assert len(children) == 2
    process.kill()
    process.wait()
    for pid in children:
        wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    import time

    end_s = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists():
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            return
        assert time.monotonic() < end_s, f"process {pid} goes on"
        time.sleep(0.02)


def test_without_setpriv_the_command_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert ending_with_parent(["ros2", "bag"]) == ["ros2", "bag"]
    assert list(ends_with_this_process().values()) == [str(os.getpid())]


def test_record_required_is_an_argument() -> None:
    argument = {argument.name: argument for argument in OWN_ARGUMENTS}["record_required"]
    assert argument.default == "true"
