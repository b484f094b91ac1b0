# SPDX-License-Identifier: Apache-2.0
"""Renders the output images of a segmentation, including one mask per group of classes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from canet_ros.formats import Groups
from canet_ros.model.class_table import ClassTable
from canet_ros.opencv import look_up
from canet_ros.pipeline.class_groups import membership_table
from canet_ros.pipeline.drawing import IMAGE_OUTPUTS, OBJECTS, OUTPUTS, ImageOutput, RenderInput

COMPRESSED, POINTS = "/compressed", "points"


class RenderedOutput(NamedTuple):
    """Pixels of an output, and whether it is requested raw, compressed, or both."""

    name: str
    output: ImageOutput
    pixels: NDArray[np.uint8]
    raw: bool
    compressed: bool


def image_outputs(groups: Groups) -> dict[str, ImageOutput]:
    """All image outputs by name: ``mask``, ``groups/drivable``."""
    return {
        **IMAGE_OUTPUTS,
        **{
            f"groups/{name}": ImageOutput(
                functools.partial(_draw_group, members), "mono8", "png", uses_scratch=True
            )
            for name, members in groups.items()
        },
    }


def point_outputs(groups: Groups) -> dict[str, Callable[[ClassTable], NDArray[np.bool_] | None]]:
    """All clouds by name, each with the mask values of its points, (256,); None: of all that the camera sees."""
    return {
        POINTS: lambda _: None,
        **{
            f"groups/{name}/{cloud}": functools.partial(_belong, members, outside)
            for name, members in groups.items()
            for cloud, outside in (("points", False), ("points_outside", True))
        },
    }


def is_cloud(output: str) -> bool:
    """Whether an output's name is one of ``point_outputs``; ``groups/points`` is the mask of a group."""
    return output == POINTS or (output.count("/") == 2 and output.endswith(("/points", "/points_outside")))


def _belong(members: tuple[str, ...], outside: bool, classes: ClassTable) -> NDArray[np.bool_]:
    return np.equal(membership_table(members, classes), 0 if outside else 255)


def output_names(groups: Groups) -> tuple[str, ...]:
    """All results of a camera that need no cloud."""
    of_groups = [f"groups/{name}{form}" for name in groups for form in ("", COMPRESSED)]
    return (*OUTPUTS, *of_groups, OBJECTS) if groups else OUTPUTS


def render(
    drawing: RenderInput, outputs: Mapping[str, ImageOutput], wanted: Collection[str]
) -> Iterator[RenderedOutput]:
    """Render the ``wanted`` outputs (``mask``, ``mask/compressed``). Pixels may be valid only until the next."""
    for name, output in outputs.items():
        raw, compressed = name in wanted, f"{name}{COMPRESSED}" in wanted
        if raw or compressed:
            yield RenderedOutput(name, output, output.render(drawing), raw, compressed)


def _draw_group(members: tuple[str, ...], drawing: RenderInput) -> NDArray[np.uint8]:
    # Allocating memory takes longer than the lookup, so scratch memory is reused.
    table = membership_table(members, drawing.options.style.classes)
    return look_up(drawing.segmentation.mask, table, drawing.scratch)
