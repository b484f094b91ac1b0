# SPDX-License-Identifier: Apache-2.0
"""What a bag is made of, whichever way it is stored."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import zstandard

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# A chunk, or a message. Damaged or malicious bytes announce, or hold, what fills any memory.
MOST_UNPACKED_BYTES = 2 << 30

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


class Message(NamedTuple):
    """A message as it was recorded; times in ns."""

    connection: Connection
    log_ns: int
    publish_ns: int
    sequence: int
    data: bytes


@dataclass
class Losses:
    """What could not be read, in sentences; and how many messages are known to be lost.

    Attributes:
        lost: messages by where they were, so that whoever reads twice does not count twice.
    """

    sentences: dict[str, None] = field(default_factory=dict)
    lost: dict[Hashable, int] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        return sum(self.lost.values())

    def say(self, sentence: str, where: Hashable = None, lost: int = 0) -> None:
        self.sentences[sentence] = None
        if lost > 0:
            self.lost[where] = lost


def message_bytes(data: bytes, connection: Connection) -> bytes:
    """A stored message without the compression that rosbag2 may have given it.

    Raises:
        zstandard.ZstdError: it is damaged, or would be larger than 2 GiB.
    """
    if data[:4] != ZSTD_MAGIC or connection.encoding != "cdr":
        return data
    return unzstd(data, max(0, zstandard.frame_content_size(data)) or MOST_UNPACKED_BYTES, exactly=True)


def unzstd(data: bytes, size: int, exactly: bool = False) -> bytes:
    """At most ``size`` bytes of what was compressed; of data that is cut off what there is, unless ``exactly``.

    Raises:
        zstandard.ZstdError: the data is damaged, or ``size`` larger than 2 GiB.
    """
    if size > MOST_UNPACKED_BYTES:
        raise zstandard.ZstdError(
            f"{size} bytes are announced; more than {MOST_UNPACKED_BYTES} are not unpacked"
        )
    if exactly:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read(size)


class StorageFile(Protocol):
    """One file of a bag, opened.

    Attributes:
        connections: as far as they are known before everything is read.
        counts: messages of each topic; empty where the file is too damaged to tell.
        start_ns, end_ns: first and last time; None without messages.
        in_time_order: whether messages come in the order of their times, else of their writing.
        out_of_order: messages read so far that were written later than others of a later time.
    """

    connections: list[Connection]
    counts: dict[Connection, int]
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
