# SPDX-License-Identifier: Apache-2.0
"""Arguments of the launch files: the node's parameters and a few of launch's. Needs neither rclpy nor launch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canet_ros.launching.nearest import SLIP, did_you_mean, nearest
from canet_ros.launching.parameter_table import PARAMETERS, ParameterSpec

ParameterValue = bool | int | float | str | list[str] | list[int]

# Both spellings, because launch files written in Python hand on str(True).
TRUE_OR_FALSE = ("true", "false", "True", "False")
# A parameter file of a whole robot has a tenth of it.
MAX_FILE_BYTES = 256 * 1024


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
# What launch and launch_ros keep among the arguments for themselves.
_OF_LAUNCH = (
    "emulate_tty",
    "launch-prefix",
    "launch-prefix-filter",
    "ros_namespace",
    "sigkill_timeout",
    "sigterm_timeout",
)
# What every node has beside its own parameters.
_OF_EVERY_NODE = ("use_sim_time", "start_type_description_service", "qos_overrides")


def launch_arguments() -> tuple[Argument, ...]:
    """All arguments of canet.launch.py: one for each parameter of the node, then those of launch itself."""
    return (*(_argument(spec) for spec in PARAMETERS), *OWN_ARGUMENTS)


def default_text(spec: ParameterSpec) -> str:
    """A parameter's default as one writes it on the command line."""
    if isinstance(spec.default, bool):
        return str(spec.default).lower()
    if isinstance(spec.default, tuple):
        return str(list(spec.default))
    return str(spec.default)


def parameter_value(spec: ParameterSpec, text: str) -> ParameterValue:
    """The value of a parameter that was given as text; ranges and choices are the node's to check.

    Raises:
        ValueError: the text is no value of the parameter's type.
    """
    if isinstance(spec.default, str):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if isinstance(spec.default, tuple):
        kind = type(spec.default[0])
        if isinstance(value, list) and value and all(type(item) is kind for item in value):
            return list(value)
        raise ValueError(f"{spec.name}: expected a list like {default_text(spec)}, got {text!r}")
    if isinstance(spec.default, bool):
        if isinstance(value, bool):
            return value
        raise ValueError(f"{spec.name}: expected true or false, got {text!r}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{spec.name}: expected a number like {default_text(spec)}, got {text!r}")
    if isinstance(spec.default, float):
        return float(value)
    if isinstance(value, float):
        raise ValueError(f"{spec.name}: expected a whole number like {default_text(spec)}, got {text!r}")
    return value


def given_parameters(given: Mapping[str, str]) -> dict[str, ParameterValue]:
    """The node's parameters among the launch arguments that somebody gave.

    Those left at their default are not in it, so that they do not override a parameter file.

    Raises:
        ValueError: a text is no value of its parameter.
    """
    values = {spec.name: parameter_value(spec, given[spec.name]) for spec in PARAMETERS if spec.name in given}
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
        ValueError: an argument is no value of its parameter, or the text is no parameter file.
    """
    in_use: dict[str, Any] = {spec.name: spec.default for spec in PARAMETERS}
    if params_file:
        in_use.update(parameters_in_file(params_file, node))
    in_use.update(given_parameters(given))
    return in_use


def parameters_in_file(text: str, node: str) -> dict[str, Any]:
    """Parameters that a parameter file holds for a node, as rcl applies them.

    Args:
        text: YAML as in ``--params-file``: node names, nested or not, over ``ros__parameters``; ``*`` stands for one
            part of a name, ``**`` for any number of parts.
        node: fully qualified name, ``/canet``.

    Raises:
        ValueError: the text is not such a file.
    """
    found: dict[str, Any] = {}
    for name, parameters in _sections_of_file(text):
        if _name_pattern(name).fullmatch(node):
            found.update(parameters)
    return found


def misspelt_arguments(given: Mapping[str, Any], declared: Iterable[str], ours_alone: bool) -> list[str]:
    """What is wrong with the names of the arguments that were given, a sentence each.

    Args:
        given: launch configurations, those of other launch files among them.
        declared: the arguments that exist.
        ours_alone: whether no other launch file can own what is not declared. Where one can, only what is nearly the
            name of an argument that was not given is taken for a misspelling.
    """
    known = list(declared)
    problems = []
    for name, value in given.items():
        # Objects are what launch_ros keeps: parameters and remappings for all nodes.
        if name in known or name in _OF_LAUNCH or not isinstance(value, str):
            continue
        slip = nearest(name, known, SLIP)
        if ours_alone or (slip and slip not in given):
            problems.append(f"launch argument {name} does nothing{did_you_mean(name, known)}")
    return problems


def misspelt_parameters(text: str, node: str) -> list[str]:
    """What in a parameter file will not reach the node, a sentence each.

    Under a pattern (``/**``) parameters of other nodes may stand too: there only what is nearly one of ours is taken
    for a misspelling.

    Args:
        text: as for ``parameters_in_file``.
        node: fully qualified name, ``/canet``.

    Raises:
        ValueError: the text is no parameter file.
    """
    known = [*(spec.name for spec in PARAMETERS), *_OF_EVERY_NODE]
    problems = file_problems(text, node)
    for section, parameters in _sections_of_file(text):
        if not _name_pattern(section).fullmatch(node):
            continue
        for name in parameters:
            stem = str(name).partition(".")[0]
            if stem in known or ("*" in section and not nearest(stem, known, SLIP)):
                continue
            problems.append(f"{name} under {section} is no parameter of {node}{did_you_mean(stem, known)}")
    return problems


def file_problems(text: str, node: str) -> list[str]:
    """Why a parameter file may not do what it says, whatever its parameters are called, a sentence each.

    Args:
        text: as for ``parameters_in_file``.
        node: fully qualified name, ``/canet``.

    Raises:
        ValueError: the text is no parameter file.
    """
    names = [name for name, _ in _sections_of_file(text)]
    problems = list(_doubled(yaml.compose(text, yaml.SafeLoader)))
    if not any(_name_pattern(name).fullmatch(node) for name in names):
        problems.append(
            f"no section is for {node}, so that nothing in the file counts; its sections are "
            f"{', '.join(names) or 'none'}{did_you_mean(node, names)}"
        )
    return problems


def read_parameter_file(path: Path) -> str:
    """The text of a parameter file.

    Raises:
        ValueError: it cannot be read, is too large, or is no text.
    """
    try:
        if not path.is_file():
            raise ValueError("it is not a file")
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise ValueError(f"it has {size_bytes} bytes, {MAX_FILE_BYTES} are the most for parameters")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ValueError(error.strerror) from error


def parameter_files(words: Sequence[str]) -> list[Path]:
    """The parameter files among a node's arguments."""
    return [Path(file) for option, file in itertools.pairwise(words) if option == "--params-file"]


def _argument(spec: ParameterSpec) -> Argument:
    description = spec.description
    if spec.minimum < spec.maximum:
        description += f" ({spec.minimum:g} to {spec.maximum:g})"
    choices = TRUE_OR_FALSE if isinstance(spec.default, bool) else spec.choices
    return Argument(spec.name, default_text(spec), description, choices)


def _sections_of_file(text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("ROS takes no YAML with aliases (*name): write out what they stand for")
        return _sections(yaml.safe_load(text), "")
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _doubled(node: yaml.Node | None) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        seen: set[Any] = set()
        for key, value in node.value:
            if key.value in seen:
                yield f"line {key.start_mark.line + 1}: {key.value} is there a second time: give it once"
            seen.add(key.value)
            yield from _doubled(value)


def _sections(tree: Any, name: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(tree, dict):
        raise ValueError("expected node names over ros__parameters, as in config/canet.yaml")
    found: list[tuple[str, dict[str, Any]]] = []
    for key, subtree in tree.items():
        if key == "ros__parameters":
            if subtree is not None and not isinstance(subtree, dict):
                raise ValueError(f"expected parameters under {name}/ros__parameters, got {subtree!r}")
            found.append((name or "/", subtree or {}))
        else:
            found.extend(_sections(subtree, f"{name}/{str(key).strip('/')}"))
    return found


def _name_pattern(name: str) -> re.Pattern[str]:
    parts = {"**": r"(/[^/]+)*", "*": r"/[^/]+"}
    return re.compile("".join(parts.get(part, "/" + re.escape(part)) for part in name.strip("/").split("/")))
