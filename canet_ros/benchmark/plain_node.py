# SPDX-License-Identifier: Apache-2.0
"""A segmentation node as it is usually written, to compare with: all in the callback, PyTorch eager in fp32.

``python -m canet_ros.benchmark.plain_node MODEL_FOLDER WIDTHxHEIGHT IMAGE_TOPIC MASK_TOPIC``
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import rclpy
import torch
from rclpy.node import Node
from sensor_msgs.msg import Image

from canet_ros.inference.model_folder import load_network, parse_resolution


class PlainNode(Node):  # type: ignore[misc]
    """Subscribes best effort with a queue of 10, as camera drivers' examples do, and publishes every mask."""

    def __init__(self, folder: Path, resolution: tuple[int, int], image_topic: str, mask_topic: str) -> None:
        super().__init__("plain_segmentation")
        self._spec, self._network = load_network(folder)
        self._resolution = resolution
        self._publisher = self.create_publisher(Image, mask_topic, 10)
        self.create_subscription(Image, image_topic, self._on_image, rclpy.qos.qos_profile_sensor_data)

    @torch.inference_mode()
    def _on_image(self, message: Image) -> None:
        image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        rgb = cv2.cvtColor(cv2.resize(image, self._resolution), cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        rgb = (rgb - np.array(self._spec.mean, np.float32)) / np.array(self._spec.std, np.float32)
        logits = self._network(torch.from_numpy(rgb.transpose(2, 0, 1)[None]))
        mask = logits.argmax(1)[0].numpy().astype(np.uint8)
        mask = cv2.resize(mask, (message.width, message.height), interpolation=cv2.INTER_NEAREST)
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
