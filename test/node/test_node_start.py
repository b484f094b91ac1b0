# SPDX-License-Identifier: Apache-2.0
"""Faults at the start: arguments, parameter files, log files, shared memory, packages. Each is one clear message."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import Graph, Process, health, ros_arguments, segmentation_node, wait_until
from waiting import WAIT_S

from canet_ros.ros.fault_log import Fault

PROGRAM = ("-c", "import sys; from canet_ros.start import segmentation_node; sys.exit(segmentation_node())")
CAMERA = "/camera/image_raw"


def ended(arguments: Sequence[str], environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status and output of a node that must end by itself."""
    process = Process([sys.executable, *PROGRAM, *arguments], environment)
    try:
        return process.wait(WAIT_S), process.output()
    finally:
        process.close()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "usage: segmentation_node --ros-args"),
        (["max_rate:=5"], 2, "max_rate:=5 is not a ROS argument; usage"),
        (["--ros-args", "-p", "max_rate:=5.0", "--", "--model", "a"], 2, "--model is not a ROS argument"),
        (["--ros-args", "--nonsense"], 1, "unknown ROS arguments: ['--nonsense']"),
    ],
)
def test_arguments_that_are_not_of_ros(arguments: list[str], status: int, words: str) -> None:
    code, output = ended(arguments)
    assert words in output
    assert code == status
    assert "Traceback" not in output


def test_a_parameter_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(b"canet:\n  ros__parameters: {model: mod\xe8le}\n")
    code, output = ended(["--ros-args", "--params-file", str(file)])
    assert f"{file}: it is not UTF-8 text (byte 37)" in output
    assert code == 1


def test_parameter_files_with_empty_lists_and_without_a_section_for_the_node(
    tmp_path: Path, random_model: Path, graph: Graph
) -> None:
    names = ("regions", "rotations", "cloud_topics")
    file, other = tmp_path / "my.yaml", tmp_path / "other.yaml"
    file.write_text(f"/**: {{ros__parameters: {{{', '.join(f'{name}: []' for name in names)}}}}}")
    other.write_text("/front/cannet: {ros__parameters: {max_rate: 5.0}}")
    arguments = ("--ros-args", "--params-file", str(file), "--params-file", str(other))
    with segmentation_node(random_model, (*PROGRAM, *arguments)) as process:
        graph.wait_for_state("active")
        assert [list(graph.get_parameter(name)) for name in names] == [[""], [0], [""]]
        (line,) = [line for line in process.output().splitlines() if ".yaml" in line]
        assert "[WARN]" in line
        assert f"{other}: no section applies to /canet" in line


def test_refused_values_end_the_node_with_one_line_that_names_them_all(tmp_path: Path) -> None:
    refused = {
        "image_topics: []": "image_topics: expected a list of texts",
        "overlay_alpha: []": "overlay_alpha: expected a number from 0 to 1, got []",
        "groups: {people: []}": "groups: people: expected a list of class names",
        "max_rate: .inf": "max_rate: expected a number from 0 to 1000, got inf",
        "backbone: resnet1": "backbone: expected one of mobilenet_v2, efficientvit_b0",
    }
    file = tmp_path / "my.yaml"
    file.write_text(f"/**: {{ros__parameters: {{{', '.join(refused)}}}}}")
    code, output = ended(["--ros-args", "--params-file", str(file)])
    (line,) = output.strip().splitlines()
    assert all(words in line for words in refused.values())
    assert code == 1


def test_values_that_exclude_each_other(random_model: Path, graph: Graph) -> None:
    code, output = ended(ros_arguments({"rotations": "[0, 90]"}))
    (line,) = output.strip().splitlines()
    assert "rotations has 2 entries for 1 cameras" in line
    assert code == 1
    with segmentation_node(random_model, PROGRAM, autostart=False) as process:
        diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        assert graph.set_parameter("rotations", [0, 90]).successful
        assert not graph.change_state("configure")
        process.wait_for_output("rotations has 2 entries for 1 cameras")
        engine = wait_until(lambda: (h := health(diagnostics, "engine")) and h["fault"] and h, "a fault")
        assert (engine["level"], engine["fault"]) == ("2", Fault.NOT_CONFIGURED.value)
        assert graph.set_parameter("rotations", [0]).successful
        assert graph.change_state("configure")
        wait_until(lambda: not health(diagnostics, "engine")["fault"], "the end of the fault")


def test_surroundings_that_are_not_needed_cost_a_warning_each(
    random_model: Path, graph: Graph, tmp_path: Path
) -> None:
    """No folder for log files, a current folder that was deleted, optional packages that are broken."""
    for package in ("vision_msgs", "bondpy"):
        (tmp_path / f"{package}.py").write_text("raise RuntimeError('built for another Python')")
    gone = tmp_path / "gone"
    gone.mkdir()
    arguments = ros_arguments({"model": random_model, "engine": "onnxruntime", "device": "cpu"})
    script = 'cd "$1" && rmdir "$1" && shift && exec "$0" "$@"'
    command = ["bash", "-c", script, sys.executable, str(gone), *PROGRAM, *arguments]
    process = Process(command, {"ROS_LOG_DIR": "/proc/no/folder", "PYTHONPATH": str(tmp_path)})
    try:
        graph.wait_for_state("active")
        assert "no log file is written: " in process.output()
        assert "set ROS_LOG_DIR to a writable folder" in process.output()
        assert "the current folder was deleted" in process.output()
        lines = [line for line in process.output().splitlines() if "built for another Python" in line]
        assert len(lines) == 2
        assert all("[WARN]" in line and "is installed, but broken: RuntimeError" in line for line in lines)
    finally:
        process.close()


def test_a_needed_package_that_is_broken_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise SystemExit(3)")
    code, output = ended([], {"PYTHONPATH": str(tmp_path)})
    (line,) = output.strip().splitlines()
    assert line.startswith("segmentation_node: cannot start: ")
    assert "cv2" in line
    assert "canet doctor" in line
    assert code == 1


@pytest.mark.parametrize("prefix", [(), ("nohup",)])
def test_a_terminal_that_closes_ends_the_node_unless_under_nohup(
    random_model: Path, graph: Graph, prefix: tuple[str, ...]
) -> None:
    arguments = ros_arguments({"model": random_model, "engine": "onnxruntime", "device": "cpu"})
    process = Process([*prefix, sys.executable, *PROGRAM, *arguments])
    try:
        graph.wait_for_state("active")
        process.signal(signal.SIGHUP)
        if prefix:
            assert graph.set_parameter("jpeg_quality", 40).successful
            process.signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        process.close()
