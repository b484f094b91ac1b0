# SPDX-License-Identifier: Apache-2.0
"""Which image topic somebody may have meant. A hint is given only if following it makes the images come."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from canet_ros.image_transports import transport_content
from canet_ros.launching.camera_topics import camera_topics, transported_topic
from canet_ros.names import TRANSPORTS

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
MESSAGE_TYPES = {"raw": IMAGE, "compressed": COMPRESSED}
NO_IMAGES = "; there are no image topics at all"
_MOST_SIMILAR = 3
_ALIKE = 0.5
# What every segmentation node publishes side by side, however its results are called.
_RESULTS = ("mask", "color_mask", "overlay")

Topics = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class CameraChoice:
    """Values of image_topics (of one camera) and image_transport, and the remapping that they take.

    Attributes:
        remapped: the topic to which a remapping leads the one that the node subscribes to; empty: none is needed.
    """

    image: str
    transport: str
    remapped: str = ""

    def works(self, existing: Topics) -> bool:
        """Whether somebody publishes what the node would subscribe to."""
        topic = self.remapped or transported_topic(self.image, self.transport)
        return MESSAGE_TYPES[self.transport] in existing.get(topic, ())

    def instead_of(self, present: CameraChoice) -> str:
        """What to change, in words."""
        parts = []
        if self.image != present.image:
            parts.append(f"image_topics to {self.image}")
        if self.transport != present.transport:
            parts.append(f"image_transport to {self.transport}")
        told = [f"set {' and '.join(parts)}"] if parts else []
        if self.remapped:
            told.append(f"start with --ros-args -r {self._remapping}")
        return ", and ".join(told)

    def beside(self, present: CameraChoice) -> str:
        """Its name in a list."""
        more = [f"image_transport {self.transport}"] if self.transport != present.transport else []
        if self.remapped:
            more.append(f"-r {self._remapping}")
        return f"{self.image} ({', '.join(more)})" if more else self.image

    @property
    def _remapping(self) -> str:
        return f"{transported_topic(self.image, self.transport)}:={self.remapped}"


def suffix_warning(image: str, transport: str) -> str:
    """What is wrong with a topic that names its transport a second time, and the right pair; empty: nothing."""
    stem = image.removesuffix(f"/{transport}")
    if transport == "raw" or stem == image:
        return ""
    return (
        f"image_transport {transport} adds /{transport} to {image}: for the images of {image} set image_topics to "
        f"{stem} and leave image_transport at {transport}"
    )


def topic_hint(present: CameraChoice, others: Sequence[str], existing: Topics, own: Collection[str]) -> str:
    """The end of a sentence that says what to set so that images come; empty where nothing can be offered.

    Args:
        present: what is set for the camera from which nothing comes.
        others: image topics of the node's other cameras; image_transport is one for all.
        existing: all topics with the types of their publishers.
        own: what the node itself publishes.
    """
    images = {t: types for t, types in existing.items() if {IMAGE, COMPRESSED} & set(types)}
    images = {t: types for t, types in images.items() if t not in own and not _is_result(t, existing)}
    images = {t: types for t, types in images.items() if not transport_content(next(iter(types)), t)}
    if not images:
        return NO_IMAGES
    stems = [present.image.removesuffix(f"/{transport}") for transport in TRANSPORTS]
    meant = [present.image, *(transported_topic(stem, t) for stem in stems for t in TRANSPORTS)]
    for topic in dict.fromkeys(meant):
        for choice in _choices(topic, images):
            if choice != present and _fits(choice, present, others, images):
                return f"; {topic} is there: {choice.instead_of(present)}"
    offered: dict[str, CameraChoice] = {}
    for topic in sorted(images):
        for choice in _choices(topic, images):
            if choice.image != present.image and _fits(choice, present, others, images):
                known = offered.get(choice.image)
                if known is None or known.transport != present.transport:
                    offered[choice.image] = choice
    alike = difflib.get_close_matches(present.image, offered, _MOST_SIMILAR, _ALIKE) or list(offered)
    names = [offered[image].beside(present) for image in alike[:_MOST_SIMILAR]]
    return f"; image topics that are there: {', '.join(names)}" if names else ""


def _choices(topic: str, images: Topics) -> Iterator[CameraChoice]:
    """How to get what a topic carries."""
    if IMAGE in images.get(topic, ()):
        yield CameraChoice(topic, "raw")
    if COMPRESSED in images.get(topic, ()):
        stem = topic.removesuffix("/compressed")
        yield CameraChoice(stem, "compressed", remapped=topic if stem == topic else "")


def _fits(choice: CameraChoice, present: CameraChoice, others: Sequence[str], images: Topics) -> bool:
    """Whether images come by it, the node takes it, and no other camera of the node loses its images."""
    try:
        camera_topics([*others, choice.image], "segmentation")
    except ValueError:
        return False
    kept = (
        CameraChoice(image, choice.transport).works(images)
        or not CameraChoice(image, present.transport).works(images)
        for image in others
    )
    return choice.works(images) and all(kept)


def _is_result(topic: str, existing: Topics) -> bool:
    namespaces = (topic.rpartition("/")[0], topic.rpartition("/groups/")[0])
    return any(all(f"{namespace}/{name}" in existing for name in _RESULTS) for namespace in namespaces)
