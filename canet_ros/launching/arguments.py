# SPDX-License-Identifier: Apache-2.0
"""Arguments of the launch files: the node's parameters and a few of launch's. Needs neither rclpy nor launch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from canet_ros.formats import groups_text
from canet_ros.launching.camera_topics import absolute_topic, camera_topics
from canet_ros.launching.nearest import did_you_mean
from canet_ros.launching.parameter_files import parameters_in_file
from canet_ros.launching.parameter_spec import ParameterSpec, Value, conflict
from canet_ros.launching.parameter_table import PARAMETERS

# Both spellings, because launch files written in Python hand on str(True).
TRUE_OR_FALSE = ("true", "false", "True", "False")


@dataclass(frozen=True)
class Argument:
    """A launch argument; its default is the text that ``ros2 launch --show-args`` shows.

    Attributes:
        choices: the texts allowed; empty: any.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


OWN_ARGUMENTS = (
    Argument("namespace", "", "Namespace of the node; image_topics without a leading slash are in it"),
    Argument("params_file", "", "YAML file with the node's parameters; arguments that are given win over it"),
    Argument("use_sim_time", "false", "Take the time from /clock", TRUE_OR_FALSE),
    Argument("log_level", "info", "Of the node's log", ("debug", "info", "warn", "error", "fatal")),
    Argument("respawn", "false", "Start the node again, after 2 s, when it ends by itself", TRUE_OR_FALSE),
    Argument("rviz", "false", "Show images, overlays and masks in RViz", TRUE_OR_FALSE),
    Argument("rviz_config", "", "RViz configuration; empty: ours, set to the topics of image_topics"),
    Argument(
        "record", "false", "Record images, masks and what explains them to a rosbag (mcap)", TRUE_OR_FALSE
    ),
    Argument(
        "record_path", "", "Folder of the new rosbag; empty: rosbag2_<date>-<time> in the current folder"
    ),
    Argument(
        "record_required",
        "true",
        "With record: a recording that cannot begin, or ends, ends the launch; false: the node goes on without",
        TRUE_OR_FALSE,
    ),
)
DEMO_ARGUMENTS = (
    Argument("input", "", "Picture, folder of pictures, video or rosbag2 to show; empty: a drawn street"),
    Argument("rate", "10.0", "Camera images per second, Hz"),
)
_DEFAULTS: dict[str, Value] = {spec.name: spec.default for spec in PARAMETERS}
# What launch and launch_ros keep among the arguments for themselves.
_OF_LAUNCH = (
    "emulate_tty",
    "global_params",
    "launch-prefix",
    "launch-prefix-filter",
    "ros_namespace",
    "ros_remaps",
    "sigkill_timeout",
    "sigterm_timeout",
)


def launch_arguments() -> tuple[Argument, ...]:
    """All arguments of canet.launch.py: one for each parameter of the node, then those of launch itself."""
    return (*(_argument(spec) for spec in PARAMETERS), *OWN_ARGUMENTS)


def given_parameters(given: Mapping[str, str], node: str = "/canet", alone: bool = False) -> dict[str, Value]:
    """The node's parameters among the launch arguments that somebody gave, checked as the node checks them.

    Those left at their default are not in it, so that they do not override a parameter file.

    Args:
        node: fully qualified name of the node; relative topics are in its namespace.
        alone: whether there is no parameter file, so that all else is at its default.

    Raises:
        ValueError: a text is no value of its parameter, or values cannot go together.
    """
    values = {spec.name: spec.parse(given[spec.name]) for spec in PARAMETERS if spec.name in given}
    _check_together({**_DEFAULTS, **values} if alone else values, node)
    if "use_sim_time" in given:
        if given["use_sim_time"].lower() not in ("true", "false"):
            raise ValueError(f"use_sim_time: expected true or false, got {given['use_sim_time']!r}")
        values["use_sim_time"] = given["use_sim_time"].lower() == "true"
    return values


def parameters_in_use(given: Mapping[str, str], params_file: str, node: str) -> dict[str, Any]:
    """Every parameter with the value that the node will start with.

    Args:
        given: the launch arguments that somebody gave.
        params_file: text of the parameter file; empty: none.
        node: fully qualified name of the node, ``/canet``.

    Raises:
        ValueError: a value does not fit its parameter, values cannot go together, or the text is no parameter file.
    """
    in_file = parameters_in_file(params_file, node) if params_file else {}
    if isinstance(in_file.get("groups"), dict):
        in_file["groups"] = groups_text(in_file["groups"])
    checked = {spec.name: spec.check(in_file[spec.name]) for spec in PARAMETERS if spec.name in in_file}
    in_use = {**_DEFAULTS, **in_file, **checked, **given_parameters(given, node)}
    _check_together(in_use, node)
    return in_use


def misspelt_arguments(given: Iterable[str], declared: Iterable[str]) -> list[str]:
    """Which of the arguments that were given to one of our launch files do nothing, a sentence each.

    Args:
        given: names of launch configurations.
        declared: the arguments that exist.
    """
    known = list(declared)
    return [
        f"launch argument {name} does nothing{did_you_mean(name, known)}"
        for name in given
        if name not in known and name not in _OF_LAUNCH
    ]


def _check_together(values: Mapping[str, Any], node: str) -> None:
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
