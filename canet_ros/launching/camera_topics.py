# SPDX-License-Identifier: Apache-2.0
"""Where a camera's topics are, and where its results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CameraTopics:
    """Absolute topic names of one camera.

    Attributes:
        image: the camera's raw image topic; its compressed form is ``<image>/compressed``.
        camera_info: beside the image, as image_transport's CameraSubscriber looks for it.
        results: prefix of everything that is published for it.
    """

    image: str
    camera_info: str
    results: str


def camera_topics(image_topics: Sequence[str]) -> tuple[CameraTopics, ...]:
    """Topics of every camera, from their resolved (absolute) image topics.

    Raises:
        ValueError: the results of two cameras would have the same names.
    """
    cameras: dict[str, CameraTopics] = {}
    for image in image_topics:
        namespace = image.rpartition("/")[0]
        camera = CameraTopics(image, f"{namespace}/camera_info", f"{namespace}/segmentation")
        if camera.results in cameras:
            raise ValueError(
                f"{cameras[camera.results].image} and {image} would both publish under {camera.results}/: "
                "give each camera a namespace of its own, for example /front/image_raw and /rear/image_raw"
            )
        cameras[camera.results] = camera
    return tuple(cameras.values())
