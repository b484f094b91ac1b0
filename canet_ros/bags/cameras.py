# SPDX-License-Identifier: Apache-2.0
"""Selects the image topics of a bag to segment, and the topics of their results."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from canet_ros.bags.bag import COMPRESSED_IMAGE, IMAGE_TYPES, BagError, Connection
from canet_ros.bags.message_types import MessageError, from_cdr
from canet_ros.bags.reading import Bag
from canet_ros.image_transports import DEPTH_ENCODINGS, VIDEO_TYPES, transport_content
from canet_ros.launching.camera_topics import camera_topics, transported_topic
from canet_ros.messages.video import video_problem
from canet_ros.names import TRANSPORTS
from canet_ros.pipeline.outputs import IMAGE_OUTPUTS

_RESULT = "holds segmentation results"
# Recorded by `canet demo --bag`.
_IS_TRUTH = "holds the ground truth of a synthetic scene, segmented only if --topics names it"
_OF_SEGMENTATION = tuple(
    f"/segmentation/{name}{form}" for name in IMAGE_OUTPUTS for form in ("", "/compressed")
)


Window = tuple[int | None, int | None]


@dataclass(frozen=True)
class BagCamera:
    """An image topic.

    Attributes:
        camera_info: topic of the camera_info; the bag may lack it.
        results: prefix of the result topics.
    """

    connection: Connection
    camera_info: str
    results: str

    @property
    def topic(self) -> str:
        return self.connection.topic


def choose_cameras(
    bag: Bag, topics: Sequence[str], note: Callable[[str], None], window: Window = (None, None)
) -> list[BagCamera]:
    """The cameras of a bag, in the order of its topics.

    If a camera was recorded in several forms, the topic with the most images is selected; if they are equal, raw is
    preferred to compressed and that to video.

    Args:
        topics: those to segment; empty: all that contain images.
        note: receives a sentence about each topic that is skipped or ambiguous.
        window: start and end in ns, as ``Bag.messages`` takes them.

    Raises:
        BagError: a topic of ``topics`` does not exist or contains no images, or the bag contains none.
    """
    by_topic: dict[str, list[Connection]] = defaultdict(list)
    for connection in bag.connections:
        by_topic[connection.topic].append(connection)
    candidates = {
        topic: next((c for c in several if c.msgtype in IMAGE_TYPES and c.encoding == "cdr"), None)
        for topic, several in by_topic.items()
    }
    first = bag.first_messages({c for c in candidates.values() if c})
    rejected = {topic: _rejection(by_topic[topic], c, first.get(topic)) for topic, c in candidates.items()}
    if topics:
        names = dict.fromkeys(_recorded_topic(topic, candidates) for topic in topics)
        for name in names:
            if rejected[name] not in ("", _RESULT, _IS_TRUTH):
                raise BagError(f"{name} {rejected[name]}")
            if candidates[name] is None:
                raise BagError(f"{name} contains no images: its type is none of {', '.join(IMAGE_TYPES)}")
        return _with_results([c for name in names if (c := candidates[name])])
    for topic, why in rejected.items():
        if why not in ("", _RESULT):
            note(f"{topic} {why}; it is copied unchanged")
    left = [c for topic, c in candidates.items() if c and not rejected[topic]]
    if not left:
        names_in_bag = [f"{c.topic} {rejected[c.topic] or f'({c.msgtype})'}" for c in bag.connections[:20]]
        raise BagError(f"the bag has no image topic; its topics are: {', '.join(names_in_bag) or 'none'}")
    return _with_results(_one_form_per_camera(bag, left, note, window))


def _recorded_topic(topic: str, candidates: Mapping[str, Connection | None]) -> str:
    """The form in which the camera of a topic was recorded."""
    absolute = topic if topic in candidates else f"/{topic.lstrip('/')}"
    for name in (transported_topic(absolute, transport) for transport in TRANSPORTS):
        if name in candidates:
            return name
    there = ", ".join(other for other, connection in candidates.items() if connection) or "none"
    raise BagError(f"the bag has no topic {topic}; its image topics are: {there}")


def _rejection(several: Sequence[Connection], connection: Connection | None, first: bytes | None) -> str:
    """Why a topic with an image type is not a camera; empty: it is one, or has another type.

    Args:
        several: all connections of the topic.
        connection: that of images; None: there is none.
        first: its first message.
    """
    topic = several[0].topic
    if connection is None:
        content = transport_content(several[0].msgtype, topic)
        return content and f"holds {content}"
    if topic.endswith(_OF_SEGMENTATION) or "/segmentation/groups/" in topic:
        return _RESULT
    if topic.endswith("/truth"):
        return _IS_TRUTH
    is_video = connection.msgtype in VIDEO_TYPES.values()
    if content := video_problem() if is_video else transport_content(connection.msgtype, topic):
        return f"holds {content}"
    with contextlib.suppress(MessageError):
        message = from_cdr(first or b"", connection.msgtype)
        described = str(message.encoding if hasattr(message, "encoding") else message.format)
        depth = [word.strip() for word in described.split(";") if word.strip() in DEPTH_ENCODINGS]
        if depth:
            return f"holds depth ({depth[0]}, REP 118), not camera images"
        if connection.msgtype == COMPRESSED_IMAGE:
            start = bytes(message.data[:16])
            content = transport_content(COMPRESSED_IMAGE, format_text=described, data=start)
            return content and f"holds {content}"
    return ""


def _one_form_per_camera(
    bag: Bag, connections: Sequence[Connection], note: Callable[[str], None], window: Window
) -> list[Connection]:
    """For each camera the topic with more images."""
    by_camera: dict[str, list[Connection]] = defaultdict(list)
    for connection in connections:
        by_camera[camera_topic(connection)].append(connection)
    twice = {c.stream for forms in by_camera.values() if len(forms) > 1 for c in forms}
    counts: Mapping[str, int] = bag.counts
    if twice and window != (None, None):
        counts = Counter(message.connection.topic for message in bag.messages(*window, streams=twice))
    chosen = []
    for name, forms in by_camera.items():
        # max returns the first of equal ones
        forms = sorted(forms, key=lambda form: IMAGE_TYPES.index(form.msgtype))
        taken = max(forms, key=lambda form: counts.get(form.topic, 0))
        if len(forms) > 1:
            first, *others = [(_transport(form), counts.get(form.topic, 0)) for form in forms]
            more = "".join(f" and {transport} ({count})" for transport, count in others)
            note(f"{name} was recorded {first[0]} ({first[1]} images){more}; using {taken.topic}")
        chosen.append(taken)
    return chosen


def _transport(connection: Connection) -> str:
    return TRANSPORTS[IMAGE_TYPES.index(connection.msgtype)]


def camera_topic(connection: Connection) -> str:
    """The raw image topic of a camera, of which this is a form."""
    transport = _transport(connection)
    return connection.topic if transport == "raw" else connection.topic.removesuffix(f"/{transport}")


def _with_results(chosen: Sequence[Connection]) -> list[BagCamera]:
    """Results are beside the camera, as those of the node; if cameras share a namespace, under the image topic."""
    plain = [camera_topics([camera_topic(connection)], "segmentation")[0] for connection in chosen]
    shared = [topics.results for topics in plain]
    return [
        BagCamera(
            connection,
            topics.camera_info,
            topics.results if shared.count(topics.results) == 1 else f"{topics.image}/segmentation",
        )
        for connection, topics in zip(chosen, plain)
    ]
