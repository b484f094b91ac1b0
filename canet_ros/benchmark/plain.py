# SPDX-License-Identifier: Apache-2.0
"""Baselines: a model in plain PyTorch, fp32 at full size, and a plain node around it.

``python -m canet_ros.benchmark.plain MODEL_FOLDER WIDTHxHEIGHT IMAGE_TOPIC MASK_TOPIC`` runs the node.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.model.model_folder import load_network, parse_resolution
from canet_ros.opencv import resize

Masks = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def plain_masks(folder: Path) -> Masks:
    """Function from images (B, H, W, 3) BGR to class ids (B, H, W) in eager PyTorch; not for ONNX models."""
    import torch

    spec, network = load_network(folder)

    def masks(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        rgb = torch.from_numpy(images).permute(0, 3, 1, 2).flip(1)
        with torch.inference_mode():
            ids: NDArray[np.uint8] = network(spec.normalize(rgb)).argmax(1).to(torch.uint8).numpy()
        return ids

    return masks


def main() -> None:
    """Run a node that does everything in its callback, subscribes best effort and queues 10 images."""
    import rclpy
    from sensor_msgs.msg import Image

    folder, size, image_topic, mask_topic = sys.argv[1:5]
    resolution = parse_resolution(size)
    masks = plain_masks(Path(folder))
    rclpy.init()
    node = rclpy.create_node("plain_segmentation")
    publisher = node.create_publisher(Image, mask_topic, 10)

    def on_image(message: Image) -> None:
        image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        mask = masks(resize(image, resolution)[None])[0]
        mask = resize(mask, (message.width, message.height), cv2.INTER_NEAREST)
        out = Image(header=message.header, height=message.height, width=message.width, encoding="mono8")
        out.step = message.width
        out.data = mask.tobytes()
        publisher.publish(out)

    node.create_subscription(Image, image_topic, on_image, rclpy.qos.qos_profile_sensor_data)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
