# SPDX-License-Identifier: Apache-2.0
"""Images and clouds rendered from a segmentation, which the node and segmented bags publish as topics.

Groups of classes ("drivable", "people") add a binary mask and two clouds each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.formats import Groups
from canet_ros.model.class_table import ClassTable
from canet_ros.opencv import in_color, look_up, resize
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.pipeline.visualization import color_lookup_table, colorize, draw_legend, overlay

CAMERA_INFO, LABEL_INFO, SHARES, OBJECTS = "camera_info", "label_info", "shares", "objects"
COMPRESSED, POINTS = "/compressed", "points"


@dataclass(frozen=True)
class ProcessOptions:
    """Options of the processing; see the node's parameters of these names.

    Attributes:
        classes: of the model, in the colours of the palette.
        legend: whether the overlay has a legend of the classes.
    """

    classes: ClassTable
    legend: bool = False
    at_network_size: bool = False
    min_confidence: float = 0.0
    overlay_alpha: float = 0.5
    groups: Groups = field(default_factory=dict)
    min_object_area: int = 100
    organized_points: bool = False


@dataclass(frozen=True)
class RenderInput:
    """What the outputs are rendered from.

    Attributes:
        image: of the camera, (H, W, 3) BGR or (H, W) grey, uint8, at its own size.
        segmentation: at the size of the results; pixels of low confidence are unlabelled.
        shares: computes the share of each class, see ``class_shares``; call it once.
    """

    image: NDArray[np.uint8]
    segmentation: Segmentation
    options: ProcessOptions
    shares: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True)
class ImageOutput:
    """A topic with one image per camera image.

    Attributes:
        render: returns the image, uint8 in ``encoding``, at the size of the results.
        codec: of the topic ``<name>/compressed``, png or jpeg; empty: no such topic.
    """

    render: Callable[[RenderInput], NDArray[np.uint8]]
    encoding: str
    codec: str = ""


def _overlay(given: RenderInput) -> NDArray[np.uint8]:
    mask, options, image = given.segmentation.mask, given.options, given.image
    if image.shape[:2] != mask.shape:
        image = resize(image, (mask.shape[1], mask.shape[0]), cv2.INTER_AREA)
    image = overlay(in_color(image), mask, color_lookup_table(options.classes, "bgr"), options.overlay_alpha)
    if options.legend:
        draw_legend(image, options.classes)
    return image


# Class ids and their colours need a lossless codec.
IMAGE_OUTPUTS = {
    "mask": ImageOutput(lambda given: given.segmentation.mask, "mono8", "png"),
    "color_mask": ImageOutput(
        lambda given: colorize(given.segmentation.mask, color_lookup_table(given.options.classes)),
        "rgb8",
        "png",
    ),
    "overlay": ImageOutput(_overlay, "bgr8", "jpeg"),
    "confidence": ImageOutput(lambda given: given.segmentation.confidence, "mono8"),
}
# Topics of a camera in a segmented bag, without those of groups.
OUTPUTS = (
    *IMAGE_OUTPUTS,
    *(f"{name}/compressed" for name, output in IMAGE_OUTPUTS.items() if output.codec),
    CAMERA_INFO,
    LABEL_INFO,
    SHARES,
)
DEFAULT_OUTPUTS = ("mask/compressed", "overlay/compressed", CAMERA_INFO, LABEL_INFO)


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
            f"groups/{name}": ImageOutput(functools.partial(_draw_group, members), "mono8", "png")
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
    """Render the ``wanted`` outputs (``mask``, ``mask/compressed``)."""
    for name, output in outputs.items():
        raw, compressed = name in wanted, f"{name}{COMPRESSED}" in wanted
        if raw or compressed:
            yield RenderedOutput(name, output, output.render(drawing), raw, compressed)


def _draw_group(members: tuple[str, ...], drawing: RenderInput) -> NDArray[np.uint8]:
    return look_up(drawing.segmentation.mask, membership_table(members, drawing.options.classes))


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
