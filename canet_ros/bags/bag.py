# SPDX-License-Identifier: Apache-2.0
"""What a bag is made of, whichever way it is stored."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from canet_ros.bags.mcap_format import decompress

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


# Topic, type and encoding. Splits and merged bags may hold one stream with several QoS profiles or definitions.
Stream = tuple[str, str, str]
Streams = Collection[Stream] | None


class BagError(ValueError):
    """A bag that cannot be read or written; the message says which, and what to do."""


@dataclass(frozen=True)
class Connection:
    """A topic with its type. Two types under one topic are two connections.

    Attributes:
        msgtype: ``package/msg/Name``.
        encoding: of the messages; ``cdr`` but for what other programs wrote.
        qos: offered QoS profiles as YAML, policies as numbers, as every rosbag2 reads them; empty: not known.
        definition_encoding: ``ros2msg``, ``ros2idl`` or another program's; empty: no definition.
        definition: of the type, with the types that it uses.
        type_hash: RIHS01 of the type; empty: not known.
        metadata: other entries that an mcap channel bears.
    """

    topic: str
    msgtype: str
    encoding: str = "cdr"
    qos: str = ""
    definition_encoding: str = ""
    definition: bytes = b""
    type_hash: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def stream(self) -> Stream:
        return self.topic, self.msgtype, self.encoding


class Place(NamedTuple):
    """Where in a bag a message is: its time in ns, and which one of that time, from 1.

    In a bag that is read in the order of writing ``log_ns`` is -1, and ``number`` counts all messages.
    """

    log_ns: int
    number: int


class Message(NamedTuple):
    """A message as it was recorded; times in ns."""

    connection: Connection
    log_ns: int
    publish_ns: int
    sequence: int
    data: bytes


@dataclass
class Losses:
    """What could not be read, in sentences; and how many messages are known to be lost."""

    sentences: dict[str, None] = field(default_factory=dict)
    messages: int = 0

    def say(self, sentence: str) -> None:
        self.sentences[sentence] = None


def message_bytes(data: bytes, connection: Connection, losses: Losses, file: str) -> bytes | None:
    """A stored message without the compression that rosbag2 may have given it; None, and said, if that is damaged."""
    if data[:4] != ZSTD_MAGIC or connection.encoding != "cdr":
        return data
    unpacked, problem = decompress(data, "zstd")
    if problem:
        losses.messages += 1
        losses.say(f"{file}: messages whose compression is damaged")
        return None
    return unpacked


class StorageFile(Protocol):
    """One file of a bag, opened.

    Attributes:
        connections: as far as they are known before everything is read.
        counts: messages of each topic; empty where only a pass over all would tell.
        start_ns, end_ns: first and last time; None without messages.
        in_time_order: whether messages come in the order of their times, else of their writing.
        out_of_order: messages read so far that were written later than others of a later time.
    """

    connections: list[Connection]
    counts: dict[str, int]
    out_of_order: int
    losses: Losses

    @property
    def start_ns(self) -> int | None: ...

    @property
    def end_ns(self) -> int | None: ...

    @property
    def in_time_order(self) -> bool: ...

    def messages(self, start_ns: int, end_ns: int, streams: Streams = None) -> Iterator[Message]:
        """Messages from ``start_ns`` on and before ``end_ns``, of these topics alone; None: of all."""
        ...

    def newest_first(self, stream: Stream, before_ns: int) -> Iterator[Message]:
        """A topic's messages before ``before_ns``; nothing is read but the parts of the file that hold them."""
        ...

    def close(self) -> None: ...


def type_name(name: str) -> str:
    """``sensor_msgs/Image``, as bags before Dashing have it, and ``sensor_msgs/msg/Image`` to the latter."""
    package, _, rest = name.partition("/")
    return f"{package}/msg/{rest}" if rest and "/" not in rest else name
