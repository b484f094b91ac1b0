# SPDX-License-Identifier: Apache-2.0
"""One camera's published results. What nobody subscribes to is not computed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.segmenter import Segmentation
from canet_ros.inference.visualization import color_lookup_table, colorize, draw_legend, overlay
from canet_ros.ros import qos
from canet_ros.ros.encoder import Encoder
from canet_ros.ros.image_conversion import ImageError, compressed_message, image_message, scaled_camera_info
from canet_ros.ros.statistics import Statistics

ENCODINGS = {"mask": "mono8", "color_mask": "rgb8", "overlay": "bgr8", "confidence": "mono8"}
# Only lossless codecs for what holds class ids or their colours.
CODECS = {"mask": "png", "color_mask": "png", "overlay": "jpeg"}
CAMERA_INFO = "camera_info"


@dataclass(frozen=True)
class Style:
    """How results look; fixed while the node is active.

    Attributes:
        size: (width, height) of the results in pixels; None for the camera's.
        legend: whether the overlay names the classes.
    """

    classes: ClassTable
    size: tuple[int, int] | None
    legend: bool

    @functools.cached_property
    def rgb_table(self) -> NDArray[np.uint8]:
        return color_lookup_table(self.classes, "rgb")

    @functools.cached_property
    def bgr_table(self) -> NDArray[np.uint8]:
        return color_lookup_table(self.classes, "bgr")


@dataclass(frozen=True)
class Result:
    """What is known of one camera image.

    Attributes:
        header: the camera message's, which every result carries.
        image: (H, W, 3) BGR or (H, W) grey, uint8.
        segmentation: at the network's resolution; None if nobody wants more than the camera_info.
        camera_info: the camera's, or None if it sends none.
    """

    header: Any
    image: NDArray[np.uint8]
    segmentation: Segmentation | None
    camera_info: Any | None


class CameraOutputs:
    """Publishers of one camera, all under one prefix.

    Args:
        statistics: the camera's; gets the time that encoding takes.
        on_qos_problem, on_bad_camera_info: take what is wrong, in words.
    """

    def __init__(
        self,
        node: Node,
        prefix: str,
        statistics: Statistics,
        on_qos_problem: Callable[[str], None],
        on_bad_camera_info: Callable[[str], None],
    ) -> None:
        self._node = node
        self._prefix = prefix
        self._statistics = statistics
        self._on_bad_camera_info = on_bad_camera_info
        types = {**dict.fromkeys(ENCODINGS, Image), CAMERA_INFO: CameraInfo}
        types |= {f"{name}/compressed": CompressedImage for name in CODECS}
        self._publishers = {
            name: node.create_publisher(
                message_type,
                f"{prefix}/{name}",
                qos.result_qos(),
                event_callbacks=qos.publisher_events(f"{prefix}/{name}", on_qos_problem),
                qos_overriding_options=qos.overrides(),
            )
            for name, message_type in types.items()
        }

    def destroy(self) -> None:
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers = {}

    def wanted(self) -> frozenset[str]:
        """Names of the outputs that somebody subscribes to."""
        return frozenset(n for n, publisher in self._publishers.items() if publisher.get_subscription_count())

    def publish(
        self,
        wanted: frozenset[str],
        result: Result,
        style: Style,
        overlay_alpha: float,
        jpeg_quality: int,
        encoder: Encoder,
    ) -> None:
        """Publish the outputs in ``wanted``; compressed ones follow from the encoder's thread."""
        size = style.size or (result.image.shape[1], result.image.shape[0])
        if result.segmentation is not None:
            for name, draw in _pictures(result, size, style, overlay_alpha).items():
                raw, compressed = name in wanted, f"{name}/compressed" in wanted
                if not (raw or compressed):
                    continue
                picture = draw()
                if raw:
                    self._publishers[name].publish(image_message(picture, ENCODINGS[name], result.header))
                if compressed:
                    task = functools.partial(self._encode, name, picture, result.header, jpeg_quality)
                    if encoder.submit(f"{self._prefix}/{name}", task):
                        self._statistics.count("not_encoded")
        if CAMERA_INFO in wanted and result.camera_info is not None:
            self._publish_camera_info(result, size)

    def _publish_camera_info(self, result: Result, size: tuple[int, int]) -> None:
        try:
            scaled = scaled_camera_info(result.camera_info, size)
        except ImageError as error:  # an uncalibrated camera's: the masks are none the worse
            self._on_bad_camera_info(str(error))
            return
        scaled.header = result.header
        self._publishers[CAMERA_INFO].publish(scaled)

    def _encode(self, name: str, picture: NDArray[np.uint8], header: Any, jpeg_quality: int) -> None:
        start_s = time.monotonic()
        message = compressed_message(picture, ENCODINGS[name], header, CODECS[name], jpeg_quality)
        self._publishers[f"{name}/compressed"].publish(message)
        self._statistics.time({"encode": (time.monotonic() - start_s) * 1e3})


def needs_inference(wanted: frozenset[str]) -> bool:
    """Whether any of these outputs takes more than the camera's own data."""
    return bool(wanted - {CAMERA_INFO})


def _pictures(
    result: Result, size: tuple[int, int], style: Style, overlay_alpha: float
) -> Mapping[str, Callable[[], NDArray[np.uint8]]]:
    assert result.segmentation is not None
    resized = result.segmentation.resized(size)

    def draw_overlay() -> NDArray[np.uint8]:
        picture = overlay(_as_bgr(result.image, size), resized.mask, style.bgr_table, overlay_alpha)
        if style.legend:
            draw_legend(picture, style.classes)
        return picture

    return {
        "mask": lambda: resized.mask,
        "color_mask": lambda: colorize(resized.mask, style.rgb_table),
        "overlay": draw_overlay,
        "confidence": lambda: resized.confidence,
    }


def _as_bgr(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if (image.shape[1], image.shape[0]) != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)  # type: ignore[assignment]
    return image
