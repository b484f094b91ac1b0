# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag are segmented, and where their results go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from canet_ros.bags.bag import COMPRESSED_IMAGE, IMAGE, BagError, Connection
from canet_ros.launching.camera_topics import camera_topics
from canet_ros.messages.pictures import PICTURES

# image_transport's other forms in a CompressedImage: depth, which OpenCV cannot decode.
_NOT_PICTURES = ("/compressedDepth",)
_OF_SEGMENTATION = tuple(f"/segmentation/{name}{form}" for name in PICTURES for form in ("", "/compressed"))


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
    connections: Sequence[Connection],
    counts: Mapping[str, int],
    topics: Sequence[str],
    say: Callable[[str], None],
) -> list[BagCamera]:
    """The cameras of a bag, in the order of its topics.

    Of a camera that was recorded raw and compressed, the raw form is taken.

    Args:
        counts: messages of each topic, as far as known.
        topics: those that are wanted; empty: all that hold pictures.
        say: told what was left out or is not plain.

    Raises:
        BagError: a wanted topic is not there or holds no pictures, or there are no pictures at all.
    """
    by_topic: dict[str, list[Connection]] = defaultdict(list)
    for connection in connections:
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
    chosen = _wanted(topics, pictures) if topics else _all(pictures, counts, say)
    if not chosen:
        names = ", ".join(f"{c.topic} ({c.msgtype})" for c in connections[:20]) or "none"
        raise BagError(f"there is no image topic; the topics are: {names}")
    return _with_results(chosen)


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
        chosen.append(connection)
    return chosen


def _all(
    pictures: Mapping[str, Connection | None], counts: Mapping[str, int], say: Callable[[str], None]
) -> list[Connection]:
    by_camera: dict[str, Connection] = {}
    for topic, connection in pictures.items():
        if connection is None or topic.endswith(_OF_SEGMENTATION) or "/segmentation/groups/" in topic:
            continue
        if topic.endswith(_NOT_PICTURES):
            say(f"{topic} holds depth, not pictures: it is carried over")
            continue
        name = _camera_name(connection)
        other = by_camera.get(name)
        if other is None:
            by_camera[name] = connection
            continue
        raw, compressed = (connection, other) if connection.msgtype == IMAGE else (other, connection)
        taken = compressed if counts.get(raw.topic) == 0 else raw
        by_camera[name] = taken
        say(f"{name} was recorded raw and compressed: pictures are taken from {taken.topic}")
    return list(by_camera.values())


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
