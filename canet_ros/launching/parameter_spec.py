# SPDX-License-Identifier: Apache-2.0
"""What a parameter may be, and which values go together: checked here for launch files, node, commands and docs."""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from canet_ros.names import CPU_ENGINES, CPU_PRECISIONS, ENGINE_PRECISIONS, GPU_ENGINES, PRECISIONS

Value = bool | int | float | str | tuple[str, ...] | tuple[int, ...]

_LIST_EXAMPLES = {"image_topics": ["/front/image_raw", "/rear/image_raw"], "regions": ["0,160,1280,480", ""]}
_FOR_EACH_CAMERA = (
    *("regions", "rotations", "ignore_masks"),
    *("cloud_topics", "cloud_extrinsics", "depth_topics"),
)


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        default: its value when nobody sets it; its type is the parameter's type.
        description: one line, for ``--show-args``, ``ros2 param describe`` and the table in the documentation.
        details: what config/canet.yaml says beside the description.
        choices: for text, the values allowed; empty: any.
        minimum, maximum: for numbers, the closed range allowed.
        form: reads a text, or an entry of a list, and raises ValueError for one that it cannot read.
        live: whether it may change at any time; the others change while the node is not active.
        needs_cleanup: whether it may change only while the node is not even configured.
        at_start: whether it is read once, when the process starts.
    """

    name: str
    default: Value
    description: str
    details: str = ""
    choices: tuple[str, ...] = ()
    minimum: float = 0.0
    maximum: float = 0.0
    form: Callable[[Any], Any] | None = None
    live: bool = False
    needs_cleanup: bool = False
    at_start: bool = False

    def check(self, value: object) -> Value:
        """A value as the node uses it: lists as tuples, integers as floats where the parameter is one.

        An empty list is the default where that stands for none; ROS hands on None for the one of a parameter file.

        Raises:
            ValueError: the value does not fit; the message names the parameter, what was expected, and the value.
        """
        if isinstance(self.default, tuple):
            entries = _entries(value)
            if entries == () and not self.default[0]:
                return self.default
            kind = type(self.default[0])
            fits = bool(entries) and all(type(entry) is kind for entry in entries or ())
            fitting: Any = entries
        elif isinstance(self.default, bool):
            fits, fitting = isinstance(value, bool), value
        elif isinstance(self.default, (int, float)):
            kinds = (int, float) if isinstance(self.default, float) else int
            fits = isinstance(value, kinds) and not isinstance(value, bool)
            fits = fits and self.minimum <= value <= self.maximum  # type: ignore[operator]
            fitting = float(value) if fits and isinstance(self.default, float) else value  # type: ignore[arg-type]
        else:
            fits, fitting = isinstance(value, str) and (not self.choices or value in self.choices), value
        if not fits:
            raise ValueError(f"{self.name}: expected {self.expectation}, got {shown(value)}")
        try:
            self.read(fitting)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(self.name) else f"{self.name}: {text}") from None
        return fitting  # type: ignore[no-any-return]

    def read(self, value: Any) -> Any:
        """What ``form`` makes of a value, of a list entry by entry; without a form the value itself."""
        if self.form is None:
            return value
        return tuple(map(self.form, value)) if isinstance(self.default, tuple) else self.form(value)

    def parse(self, text: str) -> Value:
        """``check`` of a value that was given as text, on a command line.

        Raises:
            ValueError: as ``check``.
        """
        if isinstance(self.default, str):
            return self.check(text)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        try:
            return self.check(value)
        except ValueError:
            if isinstance(value, str) or value is None:
                raise ValueError(f"{self.name}: expected {self.expectation}, got {text!r}") from None
            raise

    @property
    def expectation(self) -> str:
        """What ``check`` takes, in words, for the end of "expected"."""
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
        """The range of a number in words, ``0 to 1``; empty where there is none."""
        if self.minimum >= self.maximum:
            return ""
        whole = isinstance(self.default, int)
        return " to ".join(str(b) if whole else f"{b:g}" for b in (self.minimum, self.maximum))

    @property
    def default_text(self) -> str:
        """The default as it is written on the command line."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return str(list(self.default) if isinstance(self.default, tuple) else self.default)

    @property
    def when(self) -> str:
        """When it may change, in words."""
        if self.live:
            return "changes at any time"
        if self.at_start:
            return "read once, when the node starts"
        return f"changes while the node is {'unconfigured' if self.needs_cleanup else 'not active'}"


def shown(value: object) -> str:
    """A value in an answer, as it is written in YAML; whoever asks may send one of any length."""
    entries = _entries(value)
    if entries is not None:
        text = str(list(entries))
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float) and not math.isfinite(value):
        text = str(value).replace("inf", ".inf").replace("nan", ".nan")
    else:
        text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def conflict(values: Mapping[str, Any]) -> str:
    """Which values cannot go together, and what to change; empty: all can.

    Args:
        values: checked, by name; what is not in it is not looked at.
    """
    engine, device, precision = (values.get(name, "auto") for name in ("engine", "device", "precision"))
    if engine in CPU_ENGINES and device not in ("auto", "cpu"):
        return (
            f"engine {engine} runs on the CPU alone, device is {device}: set device to cpu, or another engine"
        )
    if engine in GPU_ENGINES and device == "cpu":
        return f"engine {engine} does not run on the CPU: set device to auto or cuda, or another engine"
    able: tuple[str, ...] = ENGINE_PRECISIONS.get(engine, PRECISIONS)
    if device == "cpu":
        able = tuple(name for name in able if name in CPU_PRECISIONS)
    if precision not in ("auto", *able):
        where = f"engine {engine} does" if engine != "auto" else "a CPU does"
        return f"precision {precision}: {where} not compute with it; use auto, {', '.join(able)}"
    cameras = len(values["image_topics"]) if "image_topics" in values else None
    for name in _FOR_EACH_CAMERA:
        count = len(values.get(name, ()))
        if cameras is not None and count > cameras:
            return f"{name} has {count} entries for {cameras} cameras: give one for each"
    for cloud, depth in zip(values.get("cloud_topics", ()), values.get("depth_topics", ())):
        if cloud and depth:
            return (
                f"cloud_topics and depth_topics name {cloud} and {depth} for one camera: give it one of them"
            )
    return ""


def _entries(value: object) -> tuple[Any, ...] | None:
    """The entries of a list in any of the forms that rclpy and YAML have for one; None: it is not a list."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple, array.array)) else None
