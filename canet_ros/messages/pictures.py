# SPDX-License-Identifier: Apache-2.0
"""The pictures that are made of a segmentation: the topics of the node, and of a segmented bag."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.segmenter import Segmentation
from canet_ros.inference.visualization import color_lookup_table, colorize, draw_legend, in_color, overlay
from canet_ros.opencv import resize

CAMERA_INFO, LABEL_INFO = "camera_info", "label_info"


@dataclass(frozen=True)
class Style:
    """How results look; fixed while the node is active.

    Attributes:
        legend: whether the overlay names the classes.
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
class RenderInput:
    """What a picture output is made from.

    Attributes:
        image: the camera's, (H, W, 3) BGR or (H, W) grey, uint8, at its own size.
        segmentation: at the size of the results; unsure pixels are unlabelled.
        scratch: memory of the mask's shape, for pictures that are copied into their message at once.
    """

    image: NDArray[np.uint8]
    segmentation: Segmentation
    style: Style
    overlay_alpha: float
    scratch: NDArray[np.uint8]


@dataclass(frozen=True)
class ImageOutput:
    """A topic that carries a picture for every camera image.

    Attributes:
        render: makes the picture, uint8 in ``encoding``, at the size of the results.
        codec: of the topic ``<name>/compressed``: png or jpeg; empty: there is none.
        uses_scratch: whether ``render`` answers with the drawing's scratch memory.
    """

    render: Callable[[RenderInput], NDArray[np.uint8]]
    encoding: str
    codec: str = ""
    uses_scratch: bool = False


def _overlay(drawing: RenderInput) -> NDArray[np.uint8]:
    mask, style = drawing.segmentation.mask, drawing.style
    picture = overlay(_as_bgr(drawing.image, mask.shape), mask, style.bgr_table, drawing.overlay_alpha)
    if style.legend:
        draw_legend(picture, style.classes)
    return picture


# Only lossless codecs for what holds class ids or their colours.
IMAGE_OUTPUTS = {
    "mask": ImageOutput(lambda d: d.segmentation.mask, "mono8", "png"),
    "color_mask": ImageOutput(lambda d: colorize(d.segmentation.mask, d.style.rgb_table), "rgb8", "png"),
    "overlay": ImageOutput(_overlay, "bgr8", "jpeg"),
    "confidence": ImageOutput(lambda d: d.segmentation.confidence, "mono8"),
}
# Of a camera in a recorded drive.
OUTPUTS = (
    *IMAGE_OUTPUTS,
    *(f"{name}/compressed" for name, picture in IMAGE_OUTPUTS.items() if picture.codec),
    CAMERA_INFO,
    LABEL_INFO,
)
DEFAULT_OUTPUTS = ("mask/compressed", "overlay/compressed", CAMERA_INFO, LABEL_INFO)


def _as_bgr(image: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if image.shape[:2] != shape:
        image = resize(image, (shape[1], shape[0]), cv2.INTER_AREA)
    return in_color(image)
