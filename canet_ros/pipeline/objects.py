# SPDX-License-Identifier: Apache-2.0
"""Connected components of groups of classes. Touching objects of a group are one component."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from canet_ros.opencv import look_up
from canet_ros.pipeline.outputs import RenderInput, membership_table


@dataclass(frozen=True)
class Component:
    """A connected component of a group, in pixels of the mask.

    Attributes:
        x, y: left and upper edge of its box.
        centre: mean column and row of its pixels.
        confidence: mean of its pixels, 0..1.
    """

    group: str
    x: int
    y: int
    width: int
    height: int
    area: int
    centre: tuple[float, float]
    confidence: float


def components(drawing: RenderInput) -> list[Component]:
    """Components of ``min_object_area`` pixels or more, by group in the order of ``groups``, the largest first."""
    options, found = drawing.options, []
    for group, members in options.groups.items():
        inside = look_up(drawing.segmentation.mask, membership_table(members, options.classes))
        left, top, width, height = cv2.boundingRect(inside)  # smaller is faster
        if not width:
            continue
        part = np.s_[top : top + height, left : left + width]
        confidence = drawing.segmentation.confidence[part]
        count, labels, boxes, centres = cv2.connectedComponentsWithStats(inside[part])
        areas = boxes[:, cv2.CC_STAT_AREA]
        # Label 0 is the background.
        large = [label for label in range(1, count) if areas[label] >= options.min_object_area]
        for label in sorted(large, key=lambda label: -areas[label]):
            x, y, width, height, area = map(int, boxes[label])
            box = np.s_[y : y + height, x : x + width]
            mean = cv2.mean(confidence[box], np.equal(labels[box], label).view(np.uint8))[0] / 255
            centre = float(centres[label][0]) + left, float(centres[label][1]) + top
            found.append(Component(group, x + left, y + top, width, height, area, centre, mean))
    return found
