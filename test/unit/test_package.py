# SPDX-License-Identifier: Apache-2.0
"""Launch arguments, config/canet.yaml and docs agree with the parameter table.

Also tested, without ROS: package.xml names what the code imports, the RViz and Foxglove files show topics of the node,
and the command line of ros2 bag record. Not tested: that RViz, Foxglove and rosbag2 accept them, which needs a ROS
installation.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from generated import GENERATED

import canet_ros
from canet_ros.launching.arguments import (
    OWN_ARGUMENTS,
    launch_arguments,
)
from canet_ros.launching.camera_topics import camera_topics
from canet_ros.launching.parameter_files import parameters_in_file
from canet_ros.launching.parameter_table import PARAMETERS
from canet_ros.launching.recording import record_command, recorded_topics
from canet_ros.launching.rviz_view import view_of_cameras

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
SPECS = {spec.name: spec for spec in PARAMETERS}


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


# --- One list of parameters ------------------------------------------------------------------------------------------


def test_launch_arguments_are_the_parameters_and_a_few_more() -> None:
    arguments = launch_arguments()
    assert [argument.name for argument in arguments] == [
        *SPECS,
        *(argument.name for argument in OWN_ARGUMENTS),
    ]
    assert all(argument.description for argument in arguments)
    for argument in arguments[: len(PARAMETERS)]:
        spec = SPECS[argument.name]
        assert argument.choices == spec.choices or isinstance(spec.default, bool)
        assert not argument.choices or argument.default in argument.choices


def test_the_configuration_file_sets_each_parameter_to_its_default() -> None:
    parameters = parameters_in_file((CONFIG / "canet.yaml").read_text(), "/any/namespace/any_node")
    defaults = {spec.name: () if spec.empty_means_none else spec.default for spec in PARAMETERS}
    assert parameters == {n: list(v) if isinstance(v, tuple) else v for n, v in defaults.items()}
    for name, value in parameters.items():
        assert type(value) is (list if isinstance(defaults[name], tuple) else type(defaults[name])), name


def test_four_cameras_file_sets_known_parameters() -> None:
    parameters = parameters_in_file((CONFIG / "four_cameras.yaml").read_text(), "/canet")
    assert set(parameters) <= set(SPECS)
    assert len(camera_topics(parameters["image_topics"], "segmentation")) == 4


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_files_are_as_written(path: Path) -> None:
    assert path.read_text() == GENERATED[path](), "make generated, and tell users in CHANGELOG.rst"


# --- Launch arguments and parameter files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("image_topics", "[/front/image_raw, /rear/image_raw]", ("/front/image_raw", "/rear/image_raw")),
        ("resolution", "480x360", "480x360"),
        ("model", "true", "true"),
        ("max_rate", "10", 10.0),
        ("legend", "True", True),
    ],
)
def test_arguments_become_values_of_the_parameters_type(name: str, text: str, value: Any) -> None:
    parsed = SPECS[name].parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("section", "node", "applies"),
    [
        ("/**", "/canet", True),
        ("/**", "/front/canet", True),
        ("/**/canet", "/front/canet", True),
        ("/*/canet", "/canet", False),
        ("/canet", "/front/canet", False),
        ("/front/canet", "/front/canet", True),
    ],
)
def test_sections_of_a_parameter_file_apply_as_in_rcl(section: str, node: str, applies: bool) -> None:
    text = yaml.safe_dump({section: {"ros__parameters": {"max_rate": 5.0}}})
    assert (parameters_in_file(text, node) == {"max_rate": 5.0}) is applies


def test_nested_names_and_later_sections_of_a_parameter_file() -> None:
    text = """
    /**: {ros__parameters: {max_rate: 1.0, max_age: 1.0}}
    front: {canet: {ros__parameters: {max_rate: 2.0}}}
    """
    assert parameters_in_file(text, "/front/canet") == {"max_rate": 2.0, "max_age": 1.0}


@pytest.mark.parametrize("text", ["max_rate: 5.0", "[1", ""])
def test_other_files_are_refused_as_parameter_files(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected node names with ros__parameters|not YAML"):
        parameters_in_file(text, "/canet")


# --- Recording -------------------------------------------------------------------------------------------------------


def test_record_command_selects_exactly_the_topics() -> None:
    # The options that ros2bag's record verb has on Humble, Jazzy, Kilted and Rolling alike.
    parser = argparse.ArgumentParser()
    parser.add_argument("--regex")
    parser.add_argument("--storage", choices=["mcap", "sqlite3"])
    parser.add_argument("--qos-profile-overrides-path")
    parser.add_argument("--output")
    parser.add_argument("--use-sim-time", action="store_true")
    topics = recorded_topics(camera_topics(["/front/image_raw", "/rear/image_raw"], "segmentation"), "raw")
    command = record_command(topics, Path("qos.yaml"), "drive", use_sim_time=True)
    assert command[:3] == ["ros2", "bag", "record"]
    options = parser.parse_args(command[3:])
    assert (options.storage, options.output, options.use_sim_time) == ("mcap", "drive", True)
    for topic in topics:
        assert re.search(options.regex, topic)
    for topic in ("/front/image_raw/compressed", "/front/segmentation/mask", "/tf_other", "/robot/tf"):
        assert not re.search(options.regex, topic)
    assert "--output" not in record_command(topics, Path("qos.yaml"), "", use_sim_time=False)


# --- RViz and Foxglove -----------------------------------------------------------------------------------------------


def rviz_topics(view: dict[str, Any]) -> list[str]:
    return [display["Topic"]["Value"] for display in view["Visualization Manager"]["Displays"]]


def test_rviz_view_follows_the_cameras() -> None:
    one = load_yaml(CONFIG / "canet.rviz")
    view = view_of_cameras(one, camera_topics(["/robot/eye/image_color"], "segmentation"), "compressed")
    assert rviz_topics(view) == [
        "/robot/eye/segmentation/overlay",
        "/robot/eye/image_color/compressed",
        "/robot/eye/segmentation/color_mask",
    ]
    assert rviz_topics(one)[0] == "/camera/segmentation/overlay"
    four = load_yaml(CONFIG / "four_cameras.rviz")
    two = view_of_cameras(four, camera_topics(["/a/image_raw", "/b/image_raw"], "segmentation"), "raw")
    assert rviz_topics(two) == ["/a/segmentation/overlay", "/b/segmentation/overlay"]
    assert yaml.safe_load(yaml.safe_dump(two)) == two


# --- package.xml -----------------------------------------------------------------------------------------------------

# Imports whose rosdep key has another name.
KEYS = {
    "argcomplete": "python3-argcomplete",
    "tf2_ros": "tf2_ros_py",
    "cv2": "python3-opencv",
    "numpy": "python3-numpy",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}
# Imports that rosdep cannot install everywhere; docs/how-to/install.md tells how to install them.
BY_PIP = {
    "torch",
    "safetensors",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "mcap",
    "rosbags",
    "zstandard",
    "lz4",
    "av",
    "ray",
    "fsspec",
    "matplotlib",
    "pycocotools",
}


def third_party_imports() -> set[str]:
    found: set[str] = set()
    for path in [*ROOT.glob("canet_ros/**/*.py"), *ROOT.glob("launch/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"canet_ros"}


def test_package_manifest_names_what_is_imported() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert (package.tag, package.get("format")) == ("package", "3")
    assert package.findtext("name") == "canet_ros"
    assert package.findtext("version") == canet_ros.__version__
    assert package.findtext("license") == "Apache-2.0"
    assert package.findtext("export/build_type") == "ament_python"
    keys = [element.text for element in package if element.tag.endswith("depend")]
    assert len(keys) == len(set(keys))
    missing = {KEYS.get(name, name) for name in third_party_imports() - BY_PIP} - set(keys)
    assert not missing
