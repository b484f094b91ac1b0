# SPDX-License-Identifier: Apache-2.0
"""Types, ranges and combinations of parameter values, checked here for launch files, node, commands and docs."""

from __future__ import annotations

import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from canet_ros.formats import engine_conflict, parse_groups

Value = bool | int | float | str | tuple[str, ...] | tuple[int, ...]

_LIST_EXAMPLES = {"image_topics": ["/front/image_raw", "/rear/image_raw"], "regions": ["0,160,1280,480", ""]}
ONE_PER_CAMERA = (
    *("regions", "rotations", "ignore_masks"),
    *("cloud_topics", "cloud_extrinsics", "depth_topics", "camera_extrinsics"),
)

_MAX_GROUND_CELLS = 1000


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        default: also determines the type.
        description: one sentence, for ``--show-args``, ``ros2 param describe`` and the docs.
        details: further sentences for config/canet.yaml.
        choices: allowed values of a string; empty: any.
        minimum, maximum: closed range of a number.
        parser: parses a string, or an entry of a list; raises ValueError if it is invalid.
        live: whether it may change at any time; other parameters change while the node is not active.
        needs_cleanup: whether it may change only while the node is unconfigured.
        at_start: whether it is read once, when the process starts.
    """

    name: str
    default: Value
    description: str
    details: str = ""
    choices: tuple[str, ...] = ()
    minimum: float = 0.0
    maximum: float = 0.0
    parser: Callable[[Any], Any] | None = None
    live: bool = False
    needs_cleanup: bool = False
    at_start: bool = False

    def check(self, value: object) -> Value:
        """Return the value as the node uses it: lists as tuples, integers as floats for a float parameter.

        An empty list gives the default where that stands for none. rclpy passes None for one in a parameter file.

        Raises:
            ValueError: the value does not fit; the message names the parameter, what was expected, and the value.
        """
        checked: Any = value
        if isinstance(self.default, tuple):
            checked = _entries(value)
            if checked == () and self.empty_means_none:
                return self.default
            kind = type(self.default[0])
            fits = bool(checked) and all(type(entry) is kind for entry in checked)
        elif isinstance(self.default, (bool, str)):
            fits = type(value) is type(self.default) and (not self.choices or value in self.choices)
        else:
            number = type(self.default)
            fits = type(value) in (int, number) and self.minimum <= checked <= self.maximum
            checked = number(checked) if fits else checked
        if not fits:
            raise ValueError(f"{self.name}: expected {self.expectation}, got {_as_text(value)}")
        try:
            self.read(checked)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(self.name) else f"{self.name}: {text}") from None
        return checked  # type: ignore[no-any-return]

    def read(self, value: Any) -> Any:
        """Parse a checked value, entry by entry if it is a list; return it unchanged if there is no parser."""
        if self.parser is None:
            return value
        return tuple(map(self.parser, value)) if isinstance(self.default, tuple) else self.parser(value)

    def parse(self, text: str) -> Value:
        """``check`` a value given as text on the command line.

        Raises:
            ValueError: as ``check``.
        """
        if isinstance(self.default, str):
            return self.check(text)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        return self.check(value)

    @property
    def empty_means_none(self) -> bool:
        """Whether an empty list stands for the default."""
        return isinstance(self.default, tuple) and not self.default[0]

    @property
    def expectation(self) -> str:
        """What ``check`` accepts, to follow "expected"."""
        if isinstance(self.default, tuple):
            kind = "texts" if isinstance(self.default[0], str) else "whole numbers"
            return f"a list of {kind} like {_LIST_EXAMPLES.get(self.name, list(self.default))}"
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, (int, float)):
            kind = "an integer" if isinstance(self.default, int) else "a number"
            return f"{kind} from {self.bounds}"
        return f"one of {', '.join(self.choices)}" if self.choices else "text"

    @property
    def bounds(self) -> str:
        """Range of a number, ``0 to 1``; empty if there is none."""
        if self.minimum >= self.maximum:
            return ""
        whole = isinstance(self.default, int)
        return " to ".join(str(b) if whole else f"{b:g}" for b in (self.minimum, self.maximum))

    @property
    def default_text(self) -> str:
        """The default as given on the command line."""
        if isinstance(self.default, tuple):
            return "[]" if self.empty_means_none else str(list(self.default))
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    @property
    def when(self) -> str:
        """When the parameter may change."""
        if self.live:
            return "changes at any time"
        if self.at_start:
            return "read once, when the node starts"
        return f"changes while the node is {'unconfigured' if self.needs_cleanup else 'not active'}"


def conflict(values: Mapping[str, Any]) -> str:
    """Which values exclude each other, and what to change; empty: none.

    Args:
        values: checked, by name; combinations with missing names are not checked.
    """
    if problem := engine_conflict(*(values.get(name, "auto") for name in ("engine", "device", "precision"))):
        return problem
    cameras = len(values["image_topics"]) if "image_topics" in values else None
    for name in ONE_PER_CAMERA:
        count = len(values.get(name, ()))
        if cameras is not None and count > cameras:
            return f"{name} has {count} entries for {cameras} cameras: give one per camera"
    for cloud, depth in zip(values.get("cloud_topics", ()), values.get("depth_topics", ())):
        if cloud and depth:
            return f"cloud_topics and depth_topics name {cloud} and {depth} for the same camera: choose one"
    ground, groups = values.get("ground_group", ""), parse_groups(values.get("groups", ""))
    if ground and ground not in groups:
        return f"ground_group {ground} is not in groups, which has {', '.join(groups) or 'none'}"
    cells = values.get("ground_range", 0.0) / values.get("ground_resolution", 1.0)
    if cells > _MAX_GROUND_CELLS:
        return (
            f"ground_range is {cells:.0f} times ground_resolution, {_MAX_GROUND_CELLS} at most: choose a shorter range "
            "or a coarser resolution"
        )
    return ""


def _as_text(value: object) -> str:
    """The value for a message, at most 203 characters."""
    entries = _entries(value)
    text = repr(value if entries is None else list(entries))
    return text if len(text) <= 200 else f"{text[:200]}..."


def _entries(value: object) -> tuple[Any, ...] | None:
    """Entries of a list as rclpy or YAML give it; None if the value is not a list."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple, array.array)) else None
