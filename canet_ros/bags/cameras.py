# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag are segmented, and where their results go."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from canet_ros.bags.bag import COMPRESSED_IMAGE, IMAGE, BagError, Connection, type_name
from canet_ros.bags.message_types import MessageError, decoded
from canet_ros.bags.reading import Bag
from canet_ros.image_transports import DEPTH_ENCODINGS, transport_content
from canet_ros.launching.camera_topics import camera_topics
from canet_ros.messages.pictures import IMAGE_OUTPUTS

_TRUTH = "/truth"  # of our street camera, in what `canet demo --bag` records
_OF_SEGMENTATION = tuple(
    f"/segmentation/{name}{form}" for name in IMAGE_OUTPUTS for form in ("", "/compressed")
)


Window = tuple[int | None, int | None]


@dataclass(frozen=True)
class BagCamera:
    """A topic of pictures.

    Attributes:
        camera_info: topic beside the pictures, whether or not the bag has it.
        results: prefix of everything that is made of them.
    """

    connection: Connection
    camera_info: str
    results: str

    @property
    def topic(self) -> str:
        return self.connection.topic


def choose_cameras(
    bag: Bag, topics: Sequence[str], say: Callable[[str], None], window: Window = (None, None)
) -> list[BagCamera]:
    """The cameras of a bag, in the order of its topics.

    Of a camera that was recorded raw and compressed the fuller form is taken, of two alike raw. Depth is no picture.

    Args:
        topics: those that are wanted; empty: all that hold pictures.
        say: told what was left out or is not plain.
        window: start and end in ns of what is wanted of the bag, as ``Bag.messages`` takes them.

    Raises:
        BagError: a wanted topic is not there or holds no pictures, or there are no pictures at all.
    """
    by_topic: dict[str, list[Connection]] = defaultdict(list)
    for connection in bag.connections:
        by_topic[connection.topic].append(connection)
    for topic, several in by_topic.items():
        types = list(dict.fromkeys(connection.msgtype for connection in several))
        if len(types) > 1:
            say(f"{topic} has messages of {len(types)} types, {' and '.join(types)}: all are carried over")
    pictures = {
        topic: next(
            (c for c in several if c.msgtype in (IMAGE, COMPRESSED_IMAGE) and c.encoding == "cdr"), None
        )
        for topic, several in by_topic.items()
    }
    if topics:
        wanted = _wanted(topics, pictures)
        for topic, why in _not_by_its_first(bag, set(wanted)).items():
            raise BagError(f"{topic} {why}")
        return _with_results(wanted)
    left = {
        topic: why for topic, connection in pictures.items() if (why := _why_not(by_topic[topic], connection))
    }
    left |= _not_by_its_first(bag, {c for topic, c in pictures.items() if c and topic not in left})
    chosen = _one_of_each(bag, [c for topic, c in pictures.items() if c and topic not in left], say, window)
    for topic, why in left.items():
        if why != _RESULT:
            say(f"{topic} {why}: it is carried over")
    if not chosen:
        names = [f"{c.topic} {left.get(c.topic) or f'({c.msgtype})'}" for c in bag.connections[:20]]
        raise BagError(f"there is no image topic; the topics are: {', '.join(names) or 'none'}")
    return _with_results(chosen)


_RESULT = "holds results of a segmentation"


def _why_not(several: Sequence[Connection], connection: Connection | None) -> str:
    """Why a topic that looks like pictures is none; empty: it is one, or looks like none."""
    topic = several[0].topic
    if connection is None:
        for other in several:
            if content := transport_content(other.msgtype, topic):
                return f"holds {content}"
            if type_name(other.msgtype) in (IMAGE, COMPRESSED_IMAGE):
                if other.encoding == "ros1":
                    return "holds pictures of ROS 1: bring the bag to ROS 2 first"
                return f"holds pictures in the encoding {other.encoding!r}, not cdr"
        return ""
    if topic.endswith(_OF_SEGMENTATION) or "/segmentation/groups/" in topic:
        return _RESULT
    if topic.endswith(_TRUTH):
        return "holds class ids, the truth of a drawn street, segmented only if --topics names it"
    content = transport_content(connection.msgtype, topic)
    return f"holds {content}" if content else ""


def _not_by_its_first(bag: Bag, cameras: set[Connection]) -> dict[str, str]:
    """Those topics whose first message is no image but depth or video."""
    left: dict[str, str] = {}
    msgtypes = {connection.topic: connection.msgtype for connection in cameras}
    for topic, data in bag.first_messages({c for c in cameras if bag.counts.get(c.topic) != 0}):
        with contextlib.suppress(MessageError):
            message = decoded(data, msgtypes[topic])
            described = str(message.encoding if msgtypes[topic] == IMAGE else message.format)
            encoding = described.partition(";")[0].strip()
            if encoding in DEPTH_ENCODINGS:
                left[topic] = f"holds depth ({encoding}, REP 118), not camera images"
            elif msgtypes[topic] != IMAGE and (
                content := transport_content(
                    msgtypes[topic], format_text=described, data=bytes(message.data[:16])
                )
            ):
                left[topic] = f"holds {content}"
    return left


def _wanted(topics: Sequence[str], pictures: Mapping[str, Connection | None]) -> list[Connection]:
    chosen = []
    for topic in dict.fromkeys(topics):
        name = topic if topic in pictures else f"/{topic.lstrip('/')}"
        if name not in pictures:
            name = f"{name}/compressed"
        if name not in pictures:
            there = ", ".join(other for other, connection in pictures.items() if connection) or "none"
            raise BagError(f"there is no topic {topic}; image topics are: {there}")
        connection = pictures[name]
        if connection is None:
            raise BagError(f"{topic} holds no pictures: it is neither {IMAGE} nor {COMPRESSED_IMAGE}")
        if content := transport_content(connection.msgtype, name):
            raise BagError(f"{topic} holds {content}")
        chosen.append(connection)
    return chosen


def _one_of_each(
    bag: Bag, connections: Sequence[Connection], say: Callable[[str], None], window: Window
) -> list[Connection]:
    """Of each camera the fuller form."""
    by_camera: dict[str, list[Connection]] = defaultdict(list)
    for connection in connections:
        by_camera[_camera_name(connection)].append(connection)
    twice = {c.stream for forms in by_camera.values() if len(forms) > 1 for c in forms}
    counts: Mapping[str, int] = bag.counts
    if twice and (window != (None, None) or not counts):
        counts = Counter(message.connection.topic for _, message in bag.messages(*window, streams=twice))
    chosen = []
    for name, forms in by_camera.items():
        # max takes the first of two that are equal
        forms = sorted(forms, key=lambda form: form.msgtype != IMAGE)
        taken = max(forms, key=lambda form: counts.get(form.topic, 0))
        if len(forms) > 1:
            raw, compressed = (counts.get(form.topic, 0) for form in forms)
            say(
                f"{name} was recorded raw and compressed, {raw} and {compressed} images: "
                f"they are taken from {taken.topic}"
            )
        chosen.append(taken)
    return chosen


def _camera_name(connection: Connection) -> str:
    compressed = connection.msgtype == COMPRESSED_IMAGE
    return connection.topic.removesuffix("/compressed") if compressed else connection.topic


def _with_results(chosen: Sequence[Connection]) -> list[BagCamera]:
    """Results stand beside the camera, as the node has them; where two share a namespace, under the topic itself."""
    plain = [camera_topics([_camera_name(connection)], "segmentation")[0] for connection in chosen]
    shared = [topics.results for topics in plain]
    return [
        BagCamera(
            connection,
            topics.camera_info,
            topics.results if shared.count(topics.results) == 1 else f"{topics.image}/segmentation",
        )
        for connection, topics in zip(chosen, plain)
    ]
