# SPDX-License-Identifier: Apache-2.0
"""Arguments of the launch files: the node's parameters, and some of their own. Needs neither rclpy nor launch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from canet_ros.launching.camera_topics import CameraTopics, absolute_topic, camera_topics
from canet_ros.launching.nearest import did_you_mean
from canet_ros.launching.parameter_files import parameters_in_file, read_parameter_file
from canet_ros.launching.parameter_spec import ParameterSpec, Value, conflict
from canet_ros.launching.parameter_table import PARAMETERS

# Launch files written in Python may pass str(True).
TRUE_OR_FALSE = ("true", "false", "True", "False")


@dataclass(frozen=True)
class Argument:
    """A launch argument.

    Attributes:
        default: as shown by ``ros2 launch --show-args``.
        choices: allowed values; empty: any.
        other_name: an argument with the same meaning, whose value is the default.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    other_name: str = ""


class GivenParameters(NamedTuple):
    """Parameters among launch arguments.

    Attributes:
        values: those that were given: others must not override a parameter file.
        cameras, image_transport: with which the node starts.
    """

    values: dict[str, Value]
    cameras: tuple[CameraTopics, ...]
    image_transport: str


OWN_ARGUMENTS = (
    Argument("namespace", "", "Namespace of the node, and of image_topics without a leading slash"),
    Argument("params_file", "", "YAML file with the node's parameters; given arguments override it"),
    Argument("use_sim_time", "false", "Take the time from /clock", TRUE_OR_FALSE),
    Argument("log_level", "info", "Log level of the node", ("debug", "info", "warn", "error", "fatal")),
    Argument("respawn", "true", "Restart the node 2 s after a crash or a broken engine", TRUE_OR_FALSE),
    Argument("use_respawn", "", "The same as respawn, with Nav2's name", TRUE_OR_FALSE, "respawn"),
    Argument("rviz", "false", "Show images, overlays and masks in RViz", TRUE_OR_FALSE),
    Argument("use_rviz", "", "The same as rviz, with Nav2's name", TRUE_OR_FALSE, "rviz"),
    Argument(
        "rviz_config", "", "RViz configuration; empty: the shipped one, with the topics of image_topics"
    ),
    Argument(
        "record", "false", "Record images, masks and their description to a rosbag (mcap)", TRUE_OR_FALSE
    ),
    Argument(
        "record_path", "", "Folder of the new rosbag; empty: rosbag2_<date>-<time> in the current folder"
    ),
    Argument("record_required", "true", "End the launch if recording fails or ends", TRUE_OR_FALSE),
)
# Arguments of demo.launch.py, some with other defaults than in canet.launch.py.
DEMO_ARGUMENTS = (
    Argument("input", "", "Image, folder of images, video or rosbag2 to publish; empty: a synthetic street"),
    Argument("rate", "10.0", "Camera images per second, Hz"),
    Argument("respawn", "false", "Restart the node 2 s after a crash or a broken engine", TRUE_OR_FALSE),
    Argument("image_topics", "['/camera/image_raw']", "Topic of the street camera"),
    Argument("rviz", "true", "Show images, overlays and masks in RViz", TRUE_OR_FALSE),
)
_USE_SIM_TIME = ParameterSpec("use_sim_time", False, "Take the time from /clock")
_OF_CAMERAS = ("image_topics", "image_transport", "results_name")
_DEFAULTS: dict[str, Value] = {spec.name: spec.default for spec in PARAMETERS}
# Launch configurations that launch and launch_ros use themselves.
_LAUNCH_CONFIGURATIONS = (
    *("emulate_tty", "global_params", "launch-prefix", "launch-prefix-filter", "ros_namespace", "ros_remaps"),
    *("sigkill_timeout", "sigterm_timeout"),
)


def launch_arguments() -> tuple[Argument, ...]:
    """All arguments of canet.launch.py: one per parameter of the node, then those of the launch file."""
    return (*(_argument(spec) for spec in PARAMETERS), *OWN_ARGUMENTS)


def declarations(arguments: Iterable[Argument]) -> list[Any]:
    """Actions that declare launch arguments."""
    from launch.actions import DeclareLaunchArgument  # here: commands and docs use this module without launch
    from launch.substitutions import LaunchConfiguration

    return [
        DeclareLaunchArgument(
            argument.name,
            default_value=LaunchConfiguration(argument.other_name)
            if argument.other_name
            else argument.default,
            description=argument.description,
            choices=list(argument.choices) or None,
        )
        for argument in arguments
    ]


def given_parameters(
    given: Mapping[str, str], params_file: Path | None = None, node: str = "/canet"
) -> GivenParameters:
    """Node parameters among the given launch arguments, checked as the node checks them.

    Args:
        node: fully qualified name of the node; relative topics are in its namespace.

    Raises:
        ValueError: a text is not a value of its parameter, values exclude each other, or the file is not a parameter
            file.
    """
    specs = (*PARAMETERS, _USE_SIM_TIME)
    values = {spec.name: spec.parse(given[spec.name]) for spec in specs if spec.name in given}
    in_use: dict[str, Any] = {**_DEFAULTS, **values}
    if params_file:  # the node checks what else is in it
        try:
            in_file = parameters_in_file(read_parameter_file(params_file), node)
            of_cameras = [spec for spec in PARAMETERS if spec.name in _OF_CAMERAS]
            in_use = {spec.name: spec.check(in_file.get(spec.name, spec.default)) for spec in of_cameras}
        except ValueError as error:
            raise ValueError(f"params_file: {params_file}: {error}") from None
        in_use |= values
    images = [absolute_topic(topic, node) for topic in in_use["image_topics"]]
    try:
        cameras = camera_topics(images, in_use["results_name"])
    except ValueError as error:
        raise ValueError(f"image_topics: {error}") from None
    if problem := conflict(in_use):
        raise ValueError(problem)
    return GivenParameters(values, cameras, in_use["image_transport"])


def unknown_arguments(given: Iterable[str], declared: Collection[str]) -> list[str]:
    """Given arguments that have no effect, one sentence each, with the likely intended name.

    Args:
        given: names of launch configurations.
        declared: names of the existing arguments.
    """
    return [
        f"launch argument {name} has no effect{did_you_mean(name, declared)}"
        for name in given
        if name not in declared and name not in _LAUNCH_CONFIGURATIONS
    ]


def _argument(spec: ParameterSpec) -> Argument:
    description = f"{spec.description} ({spec.bounds})" if spec.bounds else spec.description
    choices = TRUE_OR_FALSE if isinstance(spec.default, bool) else spec.choices
    return Argument(spec.name, spec.default_text, description, choices)
