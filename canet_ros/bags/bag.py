# SPDX-License-Identifier: Apache-2.0
"""Data types of a bag, independent of its storage format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import zstandard

from canet_ros.image_transports import VIDEO_TYPES

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
# In the order of names.TRANSPORTS.
IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE, *VIDEO_TYPES.values())
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Limit for a chunk or a message: damaged or malicious data may declare or expand to any size.
MAX_UNPACKED_BYTES = 2 << 30

# Topic, type and encoding. Splits and merged bags may hold one stream with several QoS profiles or definitions.
Stream = tuple[str, str, str]
Streams = Collection[Stream] | None


class BagError(ValueError):
    """A bag cannot be read or written. The message names the bag and the remedy."""


@dataclass(frozen=True)
class Connection:
    """A topic with its type. Two types under one topic are two connections.

    Attributes:
        msgtype: ``package/msg/Name``.
        encoding: of the messages: ``cdr`` in ROS 2; other programs may use others.
        qos: offered QoS profiles as YAML with numeric policies, which every rosbag2 reads; empty: unknown.
        definition_encoding: ``ros2msg``, ``ros2idl`` or another program's; empty: no definition.
        definition: of the type and the types that it uses.
        type_hash: RIHS01 of the type; empty: unknown.
        metadata: other metadata of an mcap channel.
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
class Block:
    """Contiguous messages of a file, in memory together while they are read; times in ns.

    Attributes:
        offset, length: where it lies in the file, in bytes; in a database, the number of the block.
        size: when it is read, in bytes.
        count: number of its messages.
        numbers: of the topics of its messages.
    """

    offset: int
    length: int
    start_ns: int = 0
    end_ns: int = 0
    size: int = 0
    count: int = 0
    numbers: set[int] = field(default_factory=set)

    def add(self, number: int, log_ns: int, size: int) -> None:
        """Count a message that is read with the block."""
        self.start_ns, self.end_ns = min(self.start_ns, log_ns), max(self.end_ns, log_ns)
        self.size += size
        self.count += 1
        self.numbers.add(number)


@dataclass
class Losses:
    """What could not be read, and how many messages are known to be lost.

    Attributes:
        problems: one sentence each, in the order found.
        lost: number of messages by position, so that a second pass does not count them twice.
    """

    problems: dict[str, None] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.lost.values())

    def add(self, problem: str, where: object = None, lost: int = 0) -> None:
        self.problems[problem] = None
        if lost > 0:
            self.lost[str(where)] = lost

    def merge(self, other: Losses) -> None:
        self.problems.update(other.problems)
        self.lost.update(other.lost)


class StorageFile:
    """One file of a bag.

    Args:
        losses: of the bag, to which those of this file are added.

    Attributes:
        blocks: all messages.
        by_number: topics by their numbers in the file.
        counts: messages of each topic, also 0.
        jumps_back: whether messages read so far followed others of a later time.
    """

    def __init__(self, path: Path, losses: Losses) -> None:
        self.blocks: list[Block] = []
        self.by_number: dict[int, Connection] = {}
        self.counts: Counter[Connection] = Counter()
        self.jumps_back = False
        self._name, self._losses = path.name, losses

    def _lose(self, problem: str, where: object = None, lost: int = 0) -> None:
        self._losses.add(f"{self._name}: {problem}", (self._name, where), lost)


def message_bytes(data: bytes, connection: Connection) -> bytes:
    """A stored message, decompressed if rosbag2 compressed it.

    Raises:
        zstandard.ZstdError: it is damaged, or larger than 2 GiB when decompressed.
    """
    if data[:4] != ZSTD_MAGIC or connection.encoding != "cdr":
        return data
    return unzstd(data, max(0, zstandard.frame_content_size(data)) or MAX_UNPACKED_BYTES, exactly=True)


def unzstd(data: bytes, size: int, exactly: bool = False) -> bytes:
    """Decompress at most ``size`` bytes. Truncated data yields what is left of it, unless ``exactly``.

    Raises:
        zstandard.ZstdError: the data is damaged, or ``size`` larger than 2 GiB.
    """
    if size > MAX_UNPACKED_BYTES:
        raise zstandard.ZstdError(f"{size} bytes declared; the limit is {MAX_UNPACKED_BYTES}")
    if exactly:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read(size)


def type_name(name: str) -> str:
    """Normalize ``sensor_msgs/Image``, as in bags before Dashing, to ``sensor_msgs/msg/Image``."""
    package, _, rest = name.partition("/")
    return f"{package}/msg/{rest}" if rest and "/" not in rest else name
