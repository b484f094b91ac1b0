# SPDX-License-Identifier: Apache-2.0
"""Images, overlays and ground truth of a run on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from canet_ros.model.class_table import ClassTable
from canet_ros.opencv import Pixels, resize
from canet_ros.pipeline.visualization import legend_box

_INK = (48, 40, 36)
_FAINT = (140, 132, 126)
_CELL_WIDTH_PX = 480
_GAP_PX = 12
_LEGEND_ROW_PX = 26
_MARGIN_PX = 32
_FONT = cv2.FONT_HERSHEY_DUPLEX


@dataclass(frozen=True)
class SheetRow:
    """Images (H, W, 3) BGR uint8 from left to right, one for each column, and the caption on the first."""

    caption: str
    images: Sequence[Pixels]


def contact_sheet(
    title: str, subtitle: str, columns: Sequence[str], rows: Sequence[SheetRow], classes: ClassTable
) -> Pixels:
    """A page (H, W, 3) BGR uint8: title, column headings, rows of images, and the classes with their colours.

    Raises:
        ValueError: no rows, or a row whose number of images is not that of the columns.
    """
    if not rows or any(len(row.images) != len(columns) for row in rows):
        raise ValueError(f"a contact sheet needs rows of {len(columns)} images")
    width = 2 * _MARGIN_PX + len(columns) * (_CELL_WIDTH_PX + _GAP_PX) - _GAP_PX
    bands = [_heading(title, subtitle, columns, width)]
    bands += [_row_band(row, width) for row in rows]
    return np.vstack([*bands, _legend(classes, width)])


def _blank(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), 255, np.uint8)


def _write(page: Pixels, text: str, x: int, y: int, scale: float, color: tuple[int, int, int]) -> None:
    cv2.putText(page, text, (x, y), _FONT, scale, color, 1, cv2.LINE_AA)


def _column_x(column: int) -> int:
    return _MARGIN_PX + column * (_CELL_WIDTH_PX + _GAP_PX)


def _heading(title: str, subtitle: str, columns: Sequence[str], width: int) -> Pixels:
    band = _blank(132, width)
    _write(band, title, _MARGIN_PX, 50, 0.95, _INK)
    _write(band, subtitle, _MARGIN_PX, 80, 0.5, _FAINT)
    for column, name in enumerate(columns):
        _write(band, name, _column_x(column), 120, 0.55, _INK)
    return band


def _row_band(row: SheetRow, width: int) -> Pixels:
    cells = [_fitted(image) for image in row.images]
    band = _blank(max(len(cell) for cell in cells) + _GAP_PX, width)
    for column, cell in enumerate(cells):
        x = _column_x(column)
        band[: len(cell), x : x + _CELL_WIDTH_PX] = cell
    (text_width, _), _ = cv2.getTextSize(row.caption, _FONT, 0.5, 1)
    x = _MARGIN_PX + 10
    cv2.rectangle(band, (x - 6, 8), (x + text_width + 6, 32), _INK, cv2.FILLED)
    _write(band, row.caption, x, 25, 0.5, (255, 255, 255))
    return band


def _fitted(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    size = (_CELL_WIDTH_PX, max(1, round(height * _CELL_WIDTH_PX / width)))
    interpolation = cv2.INTER_AREA if width > _CELL_WIDTH_PX else cv2.INTER_LINEAR
    return resize(image, size, interpolation)


def _legend(classes: ClassTable, width: int) -> Pixels:
    space_px = width - 2 * _MARGIN_PX
    boxes = [legend_box(classes, _LEGEND_ROW_PX, rows) for rows in range(1, len(classes) + 1)]
    box = next((box for box in boxes if box.shape[1] <= space_px), boxes[-1][:, :space_px])
    band = _blank(len(box) + 2 * _GAP_PX, width)
    band[_GAP_PX:-_GAP_PX, _MARGIN_PX : _MARGIN_PX + box.shape[1]] = box
    return band
