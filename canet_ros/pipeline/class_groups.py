# SPDX-License-Identifier: Apache-2.0
"""Groups of classes: one binary mask for what a vehicle asks about, as "drivable" or "people"."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from canet_ros.formats import Groups
from canet_ros.model.class_table import ClassTable


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
