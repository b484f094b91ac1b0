# SPDX-License-Identifier: Apache-2.0
"""Parsers of the text values that users give in parameters, launch arguments, options and model files.

They import neither torch, NumPy nor ROS, so that launch files and the node check values with the same functions.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import yaml

from canet_ros.names import CPU_ENGINES, CPU_PRECISIONS, ENGINE_PRECISIONS, GPU_ENGINES, PRECISIONS

Resolution = tuple[int, int]
Groups = Mapping[str, tuple[str, ...]]

MAX_SIDE = 8192
CAMERA = "camera"  # as a resolution: follow the shape of the first image
ROTATIONS = (0, 90, 180, 270)
# Any client of the parameter service can set groups; each adds a topic per camera, and long text takes time to parse.
MAX_GROUPS = 64
_MAX_GROUPS_LENGTH = 10_000
_MIN_REGION_SIDE = 16
_REGION = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_GROUPS_EXAMPLE = "{drivable: [road], people: [pedestrian, bicyclist]}"


def parse_resolution(text: str) -> Resolution:
    """``"480x360"`` to (480, 360): width, height.

    Raises:
        ValueError: the text has another form, or a side is outside 16..8192 pixels.
    """
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise ValueError(f"resolution {text!r}: expected WIDTHxHEIGHT, for example 480x360") from None
    if not (16 <= width <= MAX_SIDE and 16 <= height <= MAX_SIDE):
        raise ValueError(f"resolution {text!r}: each side must be 16 to {MAX_SIDE} pixels")
    return width, height


def parse_wanted_resolution(text: str) -> Resolution | str | None:
    """``parse_resolution``; ``CAMERA`` is returned as it is, empty text as None: the model's own resolution.

    Raises:
        ValueError: as ``parse_resolution``.
    """
    return text if text == CAMERA else parse_resolution(text) if text else None


def parse_region(text: str) -> tuple[int, int, int, int] | None:
    """``"x,y,width,height"`` in pixels; None for empty text: the whole image.

    Raises:
        ValueError: the text has another form, or the region is smaller than 16x16.
    """
    if not text.strip():
        return None
    match = _REGION.fullmatch(text)
    x, y, width, height = map(int, match.groups()) if match else (0, 0, 0, 0)
    if min(width, height) < _MIN_REGION_SIDE:
        raise ValueError(
            f"region {text!r}: expected x,y,width,height in pixels, 16x16 or more, for example 0,160,1280,480"
        )
    return x, y, width, height


def parse_rotation(degrees: int) -> int:
    """Return ``degrees``; raise ValueError unless it is one of ``ROTATIONS``."""
    if degrees not in ROTATIONS:
        raise ValueError(f"expected 0, 90, 180 or 270, got {degrees}")
    return degrees


def parse_pose(text: str) -> tuple[float, ...] | None:
    """``"x,y,z,qx,qy,qz,qw"``, in m and a quaternion of any non-zero length, as seven floats; None for empty text.

    Raises:
        ValueError: the text has another form.
    """
    if not text.strip():
        return None
    try:
        values = tuple(float(number) for number in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 7 or not all(map(math.isfinite, values)) or math.hypot(*values[3:]) <= 1e-9:
        raise ValueError(f"expected x,y,z,qx,qy,qz,qw, got {text!r}")
    return values


def parse_heights(text: str) -> tuple[float, float]:
    """``"low,high"`` in m, as two floats.

    Raises:
        ValueError: the text has another form, or low is above high.
    """
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        low, high = math.nan, math.nan
    if not -100 <= low <= high <= 100:
        raise ValueError(f"expected low,high in m like 0.0,0.45, got {text!r}")
    return low, high


def _matching(pattern: str, expectation: str) -> Callable[[str], str]:
    """A parser that returns a text unchanged if it matches, and raises ValueError with the expectation otherwise."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expectation}, got {text!r}")
        return text

    return parse


parse_device = _matching(r"auto|cpu|cuda(:\d+)?|dla(:\d+)?", "auto, cpu, cuda, cuda:N or dla:N")


def engine_conflict(engine: str, device: str, precision: str) -> str:
    """Why an engine, a device and a precision exclude each other, and what to change; empty: they do not."""
    if engine in CPU_ENGINES and device not in ("auto", "cpu"):
        return (
            f"engine {engine} runs only on the CPU, device is {device}: set device to cpu, or another engine"
        )
    if engine in GPU_ENGINES and device == "cpu":
        return f"engine {engine} does not run on the CPU: set device to auto or cuda, or another engine"
    if device.startswith("dla") and engine not in ("auto", *GPU_ENGINES):
        return f"engine {engine} does not run on {device}: set engine to {' or '.join(GPU_ENGINES)}"
    supported: tuple[str, ...] = ENGINE_PRECISIONS.get(engine, PRECISIONS)
    if device == "cpu":
        supported = tuple(name for name in supported if name in CPU_PRECISIONS)
    if precision not in ("auto", *supported):
        where = "the CPU" if engine == "auto" else f"engine {engine}"
        return f"precision {precision}: {where} does not support it; use auto, {', '.join(supported)}"
    return ""


# The rule of rmw_validate_full_topic_name.
_TOPIC = r"(~/|/)?[A-Za-z_{][A-Za-z0-9_{}]*(/[A-Za-z_{][A-Za-z0-9_{}]*)*"
_TOPIC_EXAMPLE = "letters, digits and underscores between slashes like /front/image_raw"
parse_topic = _matching(_TOPIC, f"a topic of {_TOPIC_EXAMPLE}")
parse_optional_topic = _matching(f"({_TOPIC})?", f"a topic of {_TOPIC_EXAMPLE}")
parse_results_name = _matching(
    r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*",
    "a relative name of letters, digits and underscores like 'segmentation' or 'vision/segmentation'",
)


@functools.lru_cache(maxsize=16)
def parse_groups(text: str) -> Groups:
    """Class names by group, from YAML or JSON like ``{drivable: [road], people: [pedestrian]}``; empty text: no groups.

    Raises:
        ValueError: the text has another form or is too long, there are more than ``MAX_GROUPS`` groups, a group has no
            class, or its name cannot be part of a topic name.
    """
    if len(text) > _MAX_GROUPS_LENGTH:
        raise ValueError(f"groups: expected at most {_MAX_GROUPS_LENGTH} characters, got {len(text)}")
    try:
        # BaseLoader keeps scalars as text: a class may be called "no" or "12".
        raw = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        raw = text
    if raw is None or raw == "":
        return MappingProxyType({})
    if not isinstance(raw, dict):
        raise ValueError(
            f"groups: expected names with their classes, like {_GROUPS_EXAMPLE}, got {text[:200]!r}"
        )
    if len(raw) > MAX_GROUPS:
        raise ValueError(f"groups: expected at most {MAX_GROUPS}, got {len(raw)}")
    return MappingProxyType({name: _classes(name, classes) for name, classes in raw.items()})


def groups_text(groups: Mapping[str, str | Sequence[str] | None]) -> str:
    """The inverse of ``parse_groups``, from a mapping as in a parameter file."""
    lists = {
        n: [classes] if isinstance(classes, str) else list(classes or ()) for n, classes in groups.items()
    }
    text = yaml.safe_dump(lists, default_flow_style=True)
    return " ".join(text.split())


def _classes(name: str, raw: Any) -> tuple[str, ...]:
    if not _NAME.fullmatch(str(name)) or name == "compressed":
        raise ValueError(
            f"groups: {name!r} cannot name a topic: expected a letter, then letters, digits and underscores"
        )
    classes = [raw] if isinstance(raw, str) else raw
    if not isinstance(classes, list) or not all(isinstance(c, str) and c for c in classes) or not classes:
        raise ValueError(f"groups: {name}: expected a list of class names, like {_GROUPS_EXAMPLE}")
    return tuple(dict.fromkeys(classes))
