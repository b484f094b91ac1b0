# SPDX-License-Identifier: Apache-2.0
"""Visualization of masks: colours, overlays, legends."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.model.class_table import ClassTable
from canet_ros.opencv import map_colors


@functools.lru_cache(maxsize=16)
def color_lookup_table(classes: ClassTable, order: str = "rgb") -> NDArray[np.uint8]:
    """Colours by mask value, (256, 3) uint8; other values are black. ``order`` is ``rgb`` or ``bgr``.

    All callers share the array.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.colors_rgb
    return np.ascontiguousarray(table[:, ::-1]) if order == "bgr" else table


def colorize(mask: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) class ids to (H, W, 3) colours of a table (256, 3)."""
    return map_colors(mask, table)


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], table: NDArray[np.uint8], alpha: float
) -> NDArray[np.uint8]:
    """Colours blended over the image.

    Args:
        image: (H, W, 3) uint8, in the channel order of ``table``.
        mask: (H, W) class ids.
        table: colours, (256, 3).
        alpha: 0 shows the image alone, 1 the colours alone.
    """
    blended = colorize(mask, table)
    cv2.addWeighted(image, 1 - alpha, blended, alpha, 0, dst=blended)
    return blended


def draw_legend(image: NDArray[np.uint8], classes: ClassTable) -> None:
    """Name the classes in the upper left corner of an image (H, W, 3) BGR, in place; not where they do not fit."""
    height, width = image.shape[:2]
    row = min(max(height // 26, 10), 26)
    box = legend_box(classes, row, min(len(classes), max(1, height // row)))
    if box.shape[1] <= width and box.shape[0] <= height:
        image[: box.shape[0], : box.shape[1]] = box


@functools.lru_cache(maxsize=16)
def legend_box(classes: ClassTable, row: int, rows: int) -> NDArray[np.uint8]:
    """Colours and names of the classes, (H, W, 3) BGR, in ``rows`` of ``row`` pixels; as many columns as that takes."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, row / 45
    columns = -(-len(classes) // rows)
    text_width = max(cv2.getTextSize(name, font, scale, 1)[0][0] for name in classes.names)
    cell = row + text_width + row // 2
    box = np.full((rows * row, columns * cell, 3), 32, np.uint8)
    for index, (name, (red, green, blue)) in enumerate(zip(classes.names, classes.colors)):
        x, y = index // rows * cell, index % rows * row
        cv2.rectangle(box, (x + 2, y + 2), (x + row - 3, y + row - 3), (blue, green, red), cv2.FILLED)
        cv2.putText(box, name, (x + row + 1, y + row * 3 // 4), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return box
