# SPDX-License-Identifier: Apache-2.0
"""Topics of a camera and of its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CameraTopics:
    """Absolute topic names of one camera.

    Attributes:
        image: the camera's raw image topic; its compressed form is ``<image>/compressed``.
        camera_info: in the image's namespace, as for image_transport's CameraSubscriber.
        results: prefix of all topics published for the camera.
    """

    image: str
    camera_info: str
    results: str


def camera_topics(image_topics: Sequence[str], results_name: str) -> tuple[CameraTopics, ...]:
    """Topics of every camera, from their resolved (absolute) image topics.

    Args:
        results_name: namespace of the results in that of the image: ``segmentation`` or ``vision/segmentation``.

    Raises:
        ValueError: the results of two cameras would have the same names.
    """
    cameras: dict[str, CameraTopics] = {}
    for image in image_topics:
        namespace = image.rpartition("/")[0]
        camera = CameraTopics(image, f"{namespace}/camera_info", f"{namespace}/{results_name}")
        if camera.results in cameras:
            raise ValueError(
                f"{cameras[camera.results].image} and {image} would both publish under {camera.results}/: "
                "give each camera its own namespace, for example /front/image_raw and /rear/image_raw"
            )
        cameras[camera.results] = camera
    return tuple(cameras.values())


def transported_topic(image: str, transport: str) -> str:
    """Topic of a camera's images with a transport, named as by image_transport."""
    return image if transport == "raw" else f"{image}/{transport}"


def absolute_topic(topic: str, node: str) -> str:
    """Resolve a topic name as the node does, without remappings.

    Args:
        node: fully qualified name of the node, ``/front/canet``.
    """
    if topic.startswith("~"):
        return f"{node}{topic[1:]}"
    return topic if topic.startswith("/") else f"{node.rpartition('/')[0]}/{topic}"
