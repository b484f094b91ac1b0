# SPDX-License-Identifier: Apache-2.0
"""A segmentation node as it is usually written, to compare with: all in the callback, the network eager in fp32.

``python -m canet_ros.benchmark.plain_node MODEL_FOLDER WIDTHxHEIGHT IMAGE_TOPIC MASK_TOPIC``
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from canet_ros.benchmark.plain import plain_masks
from canet_ros.inference.model_folder import parse_resolution
from canet_ros.opencv import resize


class PlainNode(Node):  # type: ignore[misc]
    """Subscribes best effort with a queue of 10, as camera drivers' examples do, and publishes every mask."""

    def __init__(self, folder: Path, resolution: tuple[int, int], image_topic: str, mask_topic: str) -> None:
        super().__init__("plain_segmentation")
        self._masks = plain_masks(folder, resolution)
        self._resolution = resolution
        self._publisher = self.create_publisher(Image, mask_topic, 10)
        self.create_subscription(Image, image_topic, self._on_image, rclpy.qos.qos_profile_sensor_data)

    def _on_image(self, message: Image) -> None:
        image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        mask = self._masks(resize(image, self._resolution)[None])[0]
        mask = resize(mask, (message.width, message.height), cv2.INTER_NEAREST)
        out = Image(header=message.header, height=message.height, width=message.width, encoding="mono8")
        out.step = message.width
        out.data = mask.tobytes()
        self._publisher.publish(out)


def main() -> None:
    folder, resolution, image_topic, mask_topic = sys.argv[1:5]
    rclpy.init()
    rclpy.spin(PlainNode(Path(folder), parse_resolution(resolution), image_topic, mask_topic))


if __name__ == "__main__":
    main()
