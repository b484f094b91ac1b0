# SPDX-License-Identifier: Apache-2.0
"""Groups of classes: one binary mask for what a vehicle asks about, as "drivable" or "people"."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from canet_ros.inference.class_table import ClassTable

Groups = Mapping[str, tuple[str, ...]]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Any caller of a parameter service can send them: each is a topic for every camera, and text takes time to be read.
MAX_GROUPS = 64
_LONGEST_TEXT = 10_000
_EXAMPLE = "{drivable: [road], people: [pedestrian, bicyclist]}"


@functools.lru_cache(maxsize=16)
def parse_groups(text: str) -> Groups:
    """Groups by name, each with the names of its classes, from ``{drivable: [road], people: [pedestrian]}`` (YAML, and
    so JSON); empty text: none.

    Raises:
        ValueError: the text is anything else or too long, there are more than ``MAX_GROUPS``, a group has no class, or
            its name cannot be part of a topic's.
    """
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"groups: expected at most {_LONGEST_TEXT} characters, got {len(text)}")
    try:
        # Every scalar stays text: a class may be called "no" or "12".
        raw = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        raw = text
    if raw is None or raw == "":
        return MappingProxyType({})
    if not isinstance(raw, dict):
        raise ValueError(f"groups: expected names with their classes like {_EXAMPLE}, got {text[:200]!r}")
    if len(raw) > MAX_GROUPS:
        raise ValueError(f"groups: expected at most {MAX_GROUPS}, got {len(raw)}")
    return MappingProxyType({name: _classes(name, classes) for name, classes in raw.items()})


def groups_text(groups: Mapping[str, Sequence[str]]) -> str:
    """The text that ``parse_groups`` reads."""
    text = yaml.safe_dump({name: list(classes) for name, classes in groups.items()}, default_flow_style=True)
    return " ".join(text.split())


def unknown_classes_problem(groups: Groups, known: Sequence[str]) -> str | None:
    """Which classes of the groups a model does not have, with those it has; None if it has all."""
    for name, classes in groups.items():
        unknown = [c for c in classes if c not in known]
        if unknown:
            return (
                f"groups: {name} names {', '.join(unknown)}, which the model does not have; "
                f"its classes are: {', '.join(known)}"
            )
    return None


@functools.lru_cache(maxsize=64)
def membership_table(members: tuple[str, ...], classes: ClassTable) -> NDArray[np.uint8]:
    """By mask value, (256,) uint8: 255 for these classes, else 0."""
    table = np.zeros(256, np.uint8)
    table[[classes.names.index(name) for name in members]] = 255
    return table


def _classes(name: str, raw: Any) -> tuple[str, ...]:
    if not _NAME.fullmatch(str(name)) or name == "compressed":
        raise ValueError(
            f"groups: {name!r} cannot name a topic: expected a letter, then letters, digits and underscores"
        )
    classes = [raw] if isinstance(raw, str) else raw
    if not isinstance(classes, list) or not all(isinstance(c, str) and c for c in classes) or not classes:
        raise ValueError(f"groups: {name}: expected a list of class names as in {_EXAMPLE}")
    return tuple(dict.fromkeys(classes))
