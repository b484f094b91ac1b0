# SPDX-License-Identifier: Apache-2.0
"""Suggests settings with which a camera's images arrive. Each suggestion is checked before it is given."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from canet_ros.image_transports import VIDEO_TYPES, transport_content
from canet_ros.launching.camera_topics import camera_topics, transported_topic
from canet_ros.names import TRANSPORTS

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
MESSAGE_TYPES = {"raw": IMAGE, "compressed": COMPRESSED, **VIDEO_TYPES}
NO_IMAGES = "; there are no image topics"
_MAX_SUGGESTIONS = 3
_MIN_SIMILARITY = 0.5
# Published by every segmentation node in one namespace, whatever results_name is.
_RESULTS = ("mask", "color_mask", "overlay")

Topics = Mapping[str, Collection[str]]
"""Message types by topic."""


@dataclass(frozen=True)
class CameraChoice:
    """One camera's entry in image_topics, image_transport, and the remapping that they need.

    Attributes:
        remapped: target of the remapping of the subscribed topic; empty: none.
    """

    image: str
    transport: str
    remapped: str = ""

    @property
    def subscribed(self) -> str:
        """Topic to which the node subscribes, before remapping."""
        return transported_topic(self.image, self.transport)

    def works(self, existing: Topics) -> bool:
        """Whether the node's subscription has a publisher."""
        return MESSAGE_TYPES[self.transport] in existing.get(self.remapped or self.subscribed, ())

    def change_from(self, present: CameraChoice) -> str:
        """Instruction to change the present choice to this one."""
        changes = [f"image_topics to {self.image}"] if self.image != present.image else []
        if self.transport != present.transport:
            changes.append(f"image_transport to {self.transport}")
        steps = [f"set {' and '.join(changes)}"] if changes else []
        if self.remapped:
            steps.append(f"start with --ros-args -r {self.subscribed}:={self.remapped}")
        return ", and ".join(steps)

    def listed(self, present: CameraChoice) -> str:
        """Image topic, and in brackets other differences from the present choice."""
        more = [f"image_transport {self.transport}"] if self.transport != present.transport else []
        if self.remapped:
            more.append(f"-r {self.subscribed}:={self.remapped}")
        return f"{self.image} ({', '.join(more)})" if more else self.image


def suffix_warning(image: str, transport: str) -> str:
    """Warning about a topic that already ends in its transport's suffix, with the fix; empty if it does not."""
    stem = image.removesuffix(f"/{transport}")
    if transport == "raw" or stem == image:
        return ""
    return (
        f"image_transport {transport} adds /{transport} to {image}: for the images of {image} set image_topics to "
        f"{stem} and leave image_transport at {transport}"
    )


def topic_hint(present: CameraChoice, others: Sequence[str], existing: Topics, own: Collection[str]) -> str:
    """Settings with which images would arrive, to end a sentence; empty if there are none.

    Args:
        present: choice of the camera whose images do not arrive.
        others: image topics of the node's other cameras, which share image_transport.
        existing: all topics with the types of their publishers.
        own: topics that the node itself publishes.
    """
    images = {
        topic: types
        for topic, types in existing.items()
        if set(MESSAGE_TYPES.values()) & set(types)
        and topic not in own
        and not _is_result(topic, existing)
        and not transport_content(next(iter(types)), topic)
    }
    if not images:
        return NO_IMAGES
    stems = [present.image.removesuffix(f"/{transport}") for transport in TRANSPORTS]
    candidates = [present.image, *(transported_topic(stem, t) for stem in stems for t in TRANSPORTS)]
    for topic in candidates:
        for choice in _choices(topic, images):
            if choice != present and _fits(choice, present, others, images):
                return f"; {topic} exists: {choice.change_from(present)}"
    fitting = [
        choice
        for topic in sorted(images)
        for choice in _choices(topic, images)
        if choice.image != present.image and _fits(choice, present, others, images)
    ]
    fitting.sort(key=lambda choice: choice.transport == present.transport)
    by_image = {choice.image: choice for choice in fitting}  # the present transport last, so preferred
    similar = difflib.get_close_matches(present.image, by_image, _MAX_SUGGESTIONS, _MIN_SIMILARITY)
    names = [by_image[image].listed(present) for image in (similar or sorted(by_image))[:_MAX_SUGGESTIONS]]
    return f"; existing image topics: {', '.join(names)}" if names else ""


def _choices(topic: str, images: Topics) -> Iterator[CameraChoice]:
    """Choices that receive the images of a topic."""
    for transport, message_type in MESSAGE_TYPES.items():
        if message_type in images.get(topic, ()):
            stem = topic.removesuffix(f"/{transport}")
            renamed = transport != "raw" and stem == topic
            yield CameraChoice(stem, transport, remapped=topic if renamed else "")


def _fits(choice: CameraChoice, present: CameraChoice, others: Sequence[str], images: Topics) -> bool:
    """Whether the choice works, is valid, and costs no other camera of the node its images."""
    try:
        camera_topics([*others, choice.image], "segmentation")
    except ValueError:
        return False
    return choice.works(images) and all(
        CameraChoice(other, choice.transport).works(images)
        or not CameraChoice(other, present.transport).works(images)
        for other in others
    )


def _is_result(topic: str, existing: Topics) -> bool:
    namespaces = (topic.rpartition("/")[0], topic.rpartition("/groups/")[0])
    return any(all(f"{namespace}/{name}" in existing for name in _RESULTS) for namespace in namespaces)
