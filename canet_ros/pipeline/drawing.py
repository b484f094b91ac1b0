# SPDX-License-Identifier: Apache-2.0
"""Images rendered from a segmentation, which the node and segmented bags publish as topics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.formats import Groups
from canet_ros.model.class_table import ClassTable
from canet_ros.opencv import in_color, resize
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.pipeline.visualization import color_lookup_table, colorize, draw_legend, overlay

CAMERA_INFO, LABEL_INFO, SHARES, OBJECTS = "camera_info", "label_info", "shares", "objects"


@dataclass(frozen=True)
class Style:
    """Appearance of the rendered images; constant while the node is active.

    Attributes:
        legend: whether the overlay has a legend of the classes.
    """

    classes: ClassTable
    legend: bool

    @functools.cached_property
    def rgb_table(self) -> NDArray[np.uint8]:
        return color_lookup_table(self.classes, "rgb")

    @functools.cached_property
    def bgr_table(self) -> NDArray[np.uint8]:
        return color_lookup_table(self.classes, "bgr")


@dataclass(frozen=True)
class ProcessOptions:
    """Options of the processing; see the node's parameters of these names."""

    style: Style
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
        scratch: buffer of the mask's shape, for images that are copied into their message at once.
        shares: computes the share of each class, see ``class_shares``; call it once.
    """

    image: NDArray[np.uint8]
    segmentation: Segmentation
    options: ProcessOptions
    scratch: NDArray[np.uint8]
    shares: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True)
class ImageOutput:
    """A topic with one image per camera image.

    Attributes:
        render: returns the image, uint8 in ``encoding``, at the size of the results.
        codec: of the topic ``<name>/compressed``, png or jpeg; empty: no such topic.
        uses_scratch: whether ``render`` returns the scratch buffer of its input.
    """

    render: Callable[[RenderInput], NDArray[np.uint8]]
    encoding: str
    codec: str = ""
    uses_scratch: bool = False


def _overlay(given: RenderInput) -> NDArray[np.uint8]:
    mask, style = given.segmentation.mask, given.options.style
    image = overlay(_as_bgr(given.image, mask.shape), mask, style.bgr_table, given.options.overlay_alpha)
    if style.legend:
        draw_legend(image, style.classes)
    return image


# Class ids and their colours need a lossless codec.
IMAGE_OUTPUTS = {
    "mask": ImageOutput(lambda given: given.segmentation.mask, "mono8", "png"),
    "color_mask": ImageOutput(
        lambda given: colorize(given.segmentation.mask, given.options.style.rgb_table), "rgb8", "png"
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


def _as_bgr(image: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if image.shape[:2] != shape:
        image = resize(image, (shape[1], shape[0]), cv2.INTER_AREA)
    return in_color(image)
