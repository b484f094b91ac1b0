# SPDX-License-Identifier: Apache-2.0
"""Arguments of the launch files: the node's parameters, and some of their own. Needs neither rclpy nor launch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from canet_ros.launching.camera_topics import absolute_topic, camera_topics
from canet_ros.launching.nearest import did_you_mean
from canet_ros.launching.parameter_files import parameters_in_file
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
_DEFAULTS: dict[str, Value] = {spec.name: spec.default for spec in PARAMETERS}
# Launch configurations that launch and launch_ros use themselves.
_LAUNCH_CONFIGURATIONS = (
    *("emulate_tty", "global_params", "launch-prefix", "launch-prefix-filter", "ros_namespace", "ros_remaps"),
    *("sigkill_timeout", "sigterm_timeout"),
)


def launch_arguments() -> tuple[Argument, ...]:
    """All arguments of canet.launch.py: one per parameter of the node, then those of the launch file."""
    return (*(_argument(spec) for spec in PARAMETERS), *OWN_ARGUMENTS)


def given_parameters(given: Mapping[str, str], node: str = "/canet", alone: bool = False) -> dict[str, Value]:
    """Node parameters among the given launch arguments, checked as the node checks them.

    Arguments that were not given are left out, so that they do not override a parameter file.

    Args:
        node: fully qualified name of the node; relative topics are in its namespace.
        alone: whether there is no parameter file, so that all other parameters have their defaults.

    Raises:
        ValueError: a text is not a value of its parameter, or values exclude each other.
    """
    specs = (*PARAMETERS, _USE_SIM_TIME)
    values = {spec.name: spec.parse(given[spec.name]) for spec in specs if spec.name in given}
    _check_combination({**_DEFAULTS, **values} if alone else values, node)
    return values


def camera_parameters(given: Mapping[str, str], params_file: str, node: str) -> dict[str, Any]:
    """``image_topics``, ``image_transport`` and ``results_name`` with which the node starts.

    Args:
        given: the launch arguments that were given.
        params_file: text of the parameter file; empty: none.
        node: fully qualified name of the node, ``/canet``.

    Raises:
        ValueError: a value does not fit its parameter, cameras have the same results, or the text is not a parameter
            file.
    """
    in_file = parameters_in_file(params_file, node) if params_file else {}
    specs = [spec for spec in PARAMETERS if spec.name in ("image_topics", "image_transport", "results_name")]
    in_use = {spec.name: spec.check(in_file.get(spec.name, spec.default)) for spec in specs}
    in_use |= {spec.name: spec.parse(given[spec.name]) for spec in specs if spec.name in given}
    _check_combination(in_use, node)
    return in_use


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


def _check_combination(values: Mapping[str, Any], node: str) -> None:
    if "image_topics" in values:
        images = [absolute_topic(topic, node) for topic in values["image_topics"]]
        try:
            camera_topics(images, values.get("results_name", "segmentation"))
        except ValueError as error:
            raise ValueError(f"image_topics: {error}") from None
    problem = conflict(values)
    if problem:
        raise ValueError(problem)


def _argument(spec: ParameterSpec) -> Argument:
    description = f"{spec.description} ({spec.bounds})" if spec.bounds else spec.description
    choices = TRUE_OR_FALSE if isinstance(spec.default, bool) else spec.choices
    return Argument(spec.name, spec.default_text, description, choices)
