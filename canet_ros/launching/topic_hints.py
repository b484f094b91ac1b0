# SPDX-License-Identifier: Apache-2.0
"""Suggests settings with which a camera's images arrive. Each suggestion is checked before it is given."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from canet_ros.image_transports import VIDEO_TYPES, transport_content
from canet_ros.launching.camera_topics import camera_topics, transported_topic

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

    def works(self, existing: Topics) -> bool:
        """Whether the node's subscription has a publisher."""
        topic = self.remapped or transported_topic(self.image, self.transport)
        return MESSAGE_TYPES[self.transport] in existing.get(topic, ())

    def settings(self, present: CameraChoice) -> str:
        """What to set besides image_topics; empty: nothing."""
        changes = [f"set image_transport to {self.transport}"] if self.transport != present.transport else []
        if self.remapped:
            changes.append(f"remap -r {transported_topic(self.image, self.transport)}:={self.remapped}")
        return ", ".join(changes)


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
    choices = [choice for choice in _choices(images) if choice != present]
    fitting = [choice for choice in choices if _fits(choice, present, others, images)]
    # The same transport last, so that it wins.
    fitting.sort(key=lambda choice: choice.transport == present.transport)
    by_image = {choice.image: choice for choice in fitting}
    stems = {present.image.removesuffix(f"/{transport}") for transport in MESSAGE_TYPES}
    for choice in (by_image[image] for image in by_image if image in stems):
        topic = choice.remapped or transported_topic(choice.image, choice.transport)
        changes = [f"set image_topics to {choice.image}"] if choice.image != present.image else []
        changes += filter(None, [choice.settings(present)])
        return f"; {topic} exists: {', '.join(changes)}"
    similar = difflib.get_close_matches(present.image, by_image, _MAX_SUGGESTIONS, _MIN_SIMILARITY)
    names = []
    for image in (similar or sorted(by_image))[:_MAX_SUGGESTIONS]:
        settings = by_image[image].settings(present)
        names.append(f"{image} ({settings})" if settings else image)
    return f"; existing image topics: {', '.join(names)}" if names else ""


def _choices(images: Topics) -> Iterator[CameraChoice]:
    """Choices that receive the images of a topic."""
    for topic, types in images.items():
        for transport, message_type in MESSAGE_TYPES.items():
            if message_type in types:
                stem = topic.removesuffix(f"/{transport}")
                renamed = transport != "raw" and stem == topic
                yield CameraChoice(stem, transport, remapped=topic if renamed else "")


def _fits(choice: CameraChoice, present: CameraChoice, others: Sequence[str], images: Topics) -> bool:
    """Whether the choice is valid and costs no other camera of the node its images."""
    try:
        camera_topics([*others, choice.image], "segmentation")
    except ValueError:
        return False
    return all(
        CameraChoice(other, choice.transport).works(images)
        or not CameraChoice(other, present.transport).works(images)
        for other in others
    )


def _is_result(topic: str, existing: Topics) -> bool:
    namespaces = (topic.rpartition("/")[0], topic.rpartition("/groups/")[0])
    return any(all(f"{namespace}/{name}" in existing for name in _RESULTS) for namespace in namespaces)
