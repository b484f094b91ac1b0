# SPDX-License-Identifier: Apache-2.0
"""Masks for human eyes: colours, overlays, legends."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.inference.class_table import ClassTable

_UNKNOWN_COLOR = (0, 0, 0)


def color_lookup_table(classes: ClassTable, order: str = "rgb") -> NDArray[np.uint8]:
    """Colours by mask value, (256, 3) uint8; values that are no class are black. ``order`` is ``rgb`` or ``bgr``."""
    table = np.empty((256, 3), np.uint8)
    table[:] = _UNKNOWN_COLOR
    table[: len(classes)] = classes.colors_rgb
    return np.ascontiguousarray(table[:, ::-1]) if order == "bgr" else table


def colorize(mask: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) class ids to (H, W, 3) colours of a table (256, 3)."""
    return np.take(table, mask, axis=0)


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], table: NDArray[np.uint8], alpha: float
) -> NDArray[np.uint8]:
    """Colours blended over the picture.

    Args:
        image: (H, W, 3) uint8, in the channel order of ``table``.
        mask: (H, W) class ids.
        table: colours, (256, 3).
        alpha: 0 shows the picture alone, 1 the colours alone.
    """
    blended: NDArray[np.uint8] = cv2.addWeighted(image, 1 - alpha, colorize(mask, table), alpha, 0)  # type: ignore[assignment]
    return blended


def draw_legend(classes: ClassTable, width: int, row_height: int = 26) -> NDArray[np.uint8]:
    """A strip (H, width, 3) BGR that names every class beside its colour, in as many rows as it takes."""
    cell = max(150, 30 + 10 * max(len(name) for name in classes.names))
    columns = max(1, width // cell)
    rows = -(-len(classes) // columns)
    strip = np.full((rows * row_height, width, 3), 255, np.uint8)
    for index, (name, (red, green, blue)) in enumerate(zip(classes.names, classes.colors)):
        x, y = (index % columns) * cell + 6, (index // columns) * row_height
        cv2.rectangle(strip, (x, y + 5), (x + 18, y + row_height - 6), (blue, green, red), cv2.FILLED)
        cv2.putText(
            strip, name, (x + 25, y + row_height - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA
        )
    return strip
