# SPDX-License-Identifier: Apache-2.0
"""The images that are drawn of a segmentation: those of every camera, and one for each group of classes."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from canet_ros.formats import Groups
from canet_ros.inference.class_groups import membership_table
from canet_ros.messages.pictures import IMAGE_OUTPUTS, ImageOutput, RenderInput
from canet_ros.opencv import look_up

COMPRESSED = "/compressed"


class Drawn(NamedTuple):
    """An output's pixels, and whether it is wanted as they are, compressed, or both."""

    name: str
    output: ImageOutput
    pixels: NDArray[np.uint8]
    raw: bool
    compressed: bool


def picture_outputs(groups: Groups) -> dict[str, ImageOutput]:
    """All outputs that are images, by name: ``mask``, ``groups/drivable``."""
    return {
        **IMAGE_OUTPUTS,
        **{
            f"groups/{name}": ImageOutput(
                functools.partial(_draw_group, members), "mono8", "png", uses_scratch=True
            )
            for name, members in groups.items()
        },
    }


def draw(
    drawing: RenderInput, pictures: Mapping[str, ImageOutput], wanted: Collection[str]
) -> Iterator[Drawn]:
    """Draws what is wanted, ``mask`` or ``mask/compressed``; pixels in scratch memory are good until the next."""
    for name, output in pictures.items():
        raw, compressed = name in wanted, f"{name}{COMPRESSED}" in wanted
        if raw or compressed:
            yield Drawn(name, output, output.render(drawing), raw, compressed)


def _draw_group(members: tuple[str, ...], drawing: RenderInput) -> NDArray[np.uint8]:
    # Into memory that is there: to get as much anew takes longer than the lookup.
    table = membership_table(members, drawing.style.classes)
    return look_up(drawing.segmentation.mask, table, drawing.scratch)
