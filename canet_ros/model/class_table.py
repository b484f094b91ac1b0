# SPDX-License-Identifier: Apache-2.0
"""Names and colours of the classes that a mask's ids stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.model.untrusted import read_yaml

UNLABELLED = 255  # of a mask's pixel that has no class; vision_msgs reserves it too
MAX_CLASSES = 255  # a mask is 8 bits a pixel


@dataclass(frozen=True)
class ClassTable:
    """Class ``i`` is called ``names[i]`` and drawn in ``colors[i]``, an RGB triple of 0..255."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= MAX_CLASSES:
            raise ValueError(f"a class table has 2 to {MAX_CLASSES} classes, not {len(self.names)}")
        if len(self.colors) != len(self.names):
            raise ValueError(f"{len(self.names)} class names, but {len(self.colors)} colours")
        if len(set(self.names)) != len(self.names):
            raise ValueError("class names must differ from each other")
        for name, color in zip(self.names, self.colors):
            if len(color) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in color):
                raise ValueError(f"colour of class {name!r}: expected three integers 0..255, got {color}")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        """Names in the order of their ids."""
        return iter(self.names)

    @property
    def colors_rgb(self) -> NDArray[np.uint8]:
        """Colours by class id, (classes, 3) uint8."""
        return np.array(self.colors, dtype=np.uint8)


def parse_class_table(entries: Any) -> ClassTable:
    """The class table in YAML form: a list of ``{name: road, color: [128, 64, 128]}`` in the order of the ids.

    Raises:
        ValueError: it is anything else.
    """
    try:
        names = tuple(entry["name"] for entry in entries)
        for place, entry in enumerate(entries):
            if entry.get("id", place) != place:
                raise ValueError(
                    f"class {entry['name']!r} has the id {entry['id']!r}, but is at position {place}: a class's id is "
                    "its position in the list"
                )
        colors = tuple(tuple(entry["color"]) for entry in entries)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            "a class table is a list of entries like {name: road, color: [128, 64, 128]}"
        ) from error
    for name in names:
        if not (isinstance(name, str) and name.strip() and name.isprintable()):
            raise ValueError(
                f"class name {name!r}: expected one line of text, in quotes if YAML would read it as another type"
            )
    return ClassTable(names, colors)


def load_class_table(name_or_path: str) -> ClassTable:
    """The class table of a shipped data set (``camvid``), or of a YAML file.

    Raises:
        ValueError: no such table exists, or the file is not a class table.
    """
    shipped = resources.files("canet_ros") / "classes"
    known = sorted(entry.name[: -len(".yaml")] for entry in shipped.iterdir() if entry.name.endswith(".yaml"))
    path = Path(name_or_path)
    if name_or_path in known:
        path = Path(str(shipped / f"{name_or_path}.yaml"))
    elif not path.is_file():
        raise ValueError(f"no class table {name_or_path!r}: give a YAML file or one of {', '.join(known)}")
    try:
        return parse_class_table(read_yaml(path))
    except ValueError as error:
        raise ValueError(f"{name_or_path}: {error}") from error
