# SPDX-License-Identifier: Apache-2.0
"""Opens a bag, complete or damaged: a folder, with or without metadata.yaml, or a single file."""

from __future__ import annotations

import heapq
import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import zstandard
from mcap.records import Attachment
from mcap.writer import MCAP0_MAGIC

from canet_ros.bags.bag import ZSTD_MAGIC, BagError, Block, Connection, Losses, Message, Stream, Streams
from canet_ros.bags.mcap_reader import McapFile
from canet_ros.bags.message_types import MessageError, from_cdr
from canet_ros.bags.metadata import METADATA_FILE, TYPE_HASHES, file_paths, read_metadata
from canet_ros.bags.qos import is_latched
from canet_ros.bags.sqlite_reader import SqliteFile

_File = McapFile | SqliteFile
_TRANSFORMS = "tf2_msgs/msg/TFMessage"
_SQLITE_MAGIC = b"SQLite format 3\0"
_TIME_LIMIT_NS = 2**64
# Limit for messages of blocks that overlap in time, which are in memory at once.
_MAX_OVERLAP_BYTES = 256 << 20


class Bag:
    """An opened bag. Use as a context manager.

    Args:
        contents: of metadata.yaml; empty if it is missing or broken.

    Attributes:
        losses: found so far.
        connections: topics with their types, including those without messages.
        counts: messages of each topic.
        start_ns, end_ns: first and last time.
        custom: custom data of its metadata.
        type_hashes: RIHS01 by type, as metadata.yaml has them.
        distribution: ROS distribution that recorded it; empty: unknown.
        metadata: metadata records of other programs in mcap files.
    """

    def __init__(self, path: Path, files: list[_File], contents: dict[str, Any], losses: Losses) -> None:
        self.path, self.files, self.losses = path, files, losses
        self.connections = list(dict.fromkeys(connection for file in files for connection in file.counts))
        self.counts: Counter[str] = Counter()
        for file in files:
            for connection, count in file.counts.items():
                self.counts[connection.topic] += count
        blocks = [block for file in files for block in file.blocks]
        self.is_empty = not blocks
        self.start_ns = min((block.start_ns for block in blocks), default=0)
        self.end_ns = max((block.end_ns for block in blocks), default=0)
        records = [record for file in files if isinstance(file, McapFile) for record in file.metadata]
        self.metadata = [record for record in records if record[0] != "rosbag2"]
        self.custom = {str(key): str(value) for key, value in (contents.get("custom_data") or {}).items()}
        self.type_hashes: dict[str, str] = contents.get(TYPE_HASHES, {})
        self.distribution = str(contents.get("ros_distro") or "")
        announced = contents.get("message_count")
        # That beside a single file may count other files, too.
        is_whole = path.is_dir() or len(contents.get("relative_file_paths", ())) == 1
        if isinstance(announced, int) and is_whole:
            held = sum(block.count for block in blocks)
            sentence = f"{METADATA_FILE} counts {announced} messages, but {held} could be read"
            if (missing := announced - held - self.losses.count) > 0:
                self.losses.add(sentence, METADATA_FILE, missing)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            file.close()

    @property
    def jumps_back(self) -> bool:
        """Whether messages read so far followed others of a later time in their file."""
        return any(file.jumps_back for file in self.files)

    def messages(
        self, start_ns: int | None = None, end_ns: int | None = None, streams: Streams = None
    ) -> Iterator[Message]:
        """Yield messages by log time over all files, as far as bounded memory permits that.

        Args:
            start_ns, end_ns: ``start_ns`` <= log time < ``end_ns``; None: no limit.
            streams: None: all.
        """
        first_ns, limit_ns = start_ns or 0, _TIME_LIMIT_NS if end_ns is None else end_ns
        blocks = [
            b for b in self.blocks_with(streams) if b[0].start_ns < limit_ns and b[0].end_ns >= first_ns
        ]
        read: list[Message] = []
        for block, file in sorted(blocks, key=lambda entry: entry[0].start_ns):
            due = bisect_left(read, block.start_ns, key=_log_ns)
            if sum(len(message.data) for message in read[due:]) > _MAX_OVERLAP_BYTES:
                self.losses.add("too many messages are out of order: not all are sorted by time")
                due = len(read)
            yield from read[:due]
            wanted = (
                message
                for message in file.read(block)
                if first_ns <= message.log_ns < limit_ns
                and (streams is None or message.connection.stream in streams)
            )
            read = list(heapq.merge(read[due:], wanted, key=_log_ns))
        yield from read

    def newest_first(self, stream: Stream, before_ns: int) -> Iterator[Message]:
        """A stream's messages before ``before_ns``, newest first; reads only the parts of the files with them."""
        blocks = [b for b in self.blocks_with({stream}) if b[0].start_ns < before_ns]
        read: list[Message] = []
        for block, file in sorted(blocks, key=lambda entry: entry[0].end_ns, reverse=True):
            while read and read[-1].log_ns >= block.end_ns:
                yield read.pop()
            messages = (m for m in file.read(block) if m.connection.stream == stream and m.log_ns < before_ns)
            read = sorted([*read, *messages], key=_log_ns)
        yield from reversed(read)

    def first_messages(self, wanted: Collection[Connection]) -> dict[str, bytes]:
        """Data of the first message of each connection that has one, by topic."""
        streams = {connection.stream for connection in wanted}
        found = (next(self.messages(streams={stream}), None) for stream in streams)
        return {message.connection.topic: message.data for message in found if message is not None}

    def blocks_with(self, streams: Streams) -> list[tuple[Block, _File]]:
        """Blocks with messages of these streams; None: all."""
        return [
            (block, file)
            for file in self.files
            for block in file.blocks
            if streams is None
            or any(n in file.by_number and file.by_number[n].stream in streams for n in block.numbers)
        ]

    def attachments(self) -> Iterator[Attachment]:
        """The readable attachments of all files."""
        for file in self.files:
            if isinstance(file, McapFile):
                yield from file.attachments()


def open_bag(path: Path, work: Path) -> Bag:
    """Open a bag.

    Args:
        path: folder, or file (.mcap, .db3, or either followed by .zstd).
        work: folder for decompressed files; created when needed.

    Raises:
        BagError: nothing can be read.
    """
    if not path.exists():
        raise BagError(f"{path} does not exist")
    if path.name == METADATA_FILE:
        path = path.parent
    losses = Losses()
    metadata = read_metadata(path, losses)
    names = file_paths(path, metadata, losses)
    files: list[_File] = []
    problems = []
    for name in names:
        try:
            files.append(_open_file(name, work, losses))
        except BagError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"cannot read {name}: {error.strerror or error}")
    if not files:
        raise BagError(problems[0] if len(problems) == 1 else f"{path} cannot be read: {'; '.join(problems)}")
    for problem in problems:
        losses.add(problem)
    if not path.is_dir() and not metadata and isinstance(files[0], SqliteFile):
        losses.add(
            f"{path.name}: {METADATA_FILE} is missing beside it, so its completeness cannot be checked"
        )
    return Bag(path, files, metadata, losses)


def _open_file(path: Path, work: Path, losses: Losses) -> _File:
    with path.open("rb") as file:
        magic = file.read(16)
    if magic[:4] == ZSTD_MAGIC:
        path = _unpacked_file(path, work, losses)
        with path.open("rb") as file:
            magic = file.read(16)
    if not magic:
        raise BagError(f"{path} is empty: 0 bytes")
    if magic == _SQLITE_MAGIC:
        return SqliteFile(path, losses, work)
    if magic.startswith(MCAP0_MAGIC[:5]) or path.suffix == ".mcap":
        return McapFile(path, losses)
    if magic.startswith(b"#ROSBAG"):
        raise BagError(f"{path} is a ROS 1 bag: convert it with rosbags-convert --src {path.name} --dst OUT")
    raise BagError(f"{path} is not a rosbag2: neither mcap nor an SQLite database")


def _unpacked_file(path: Path, work: Path, losses: Losses) -> Path:
    """Decompress a file, as far as possible. That of a truncated one is found truncated when it is read."""
    work.mkdir(parents=True, exist_ok=True)
    target = work / (path.stem if path.suffix in (".zstd", ".zst") else path.name)
    decompressor = zstandard.ZstdDecompressor()
    try:
        with path.open("rb") as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(decompressor.stream_reader(packed, read_across_frames=True), unpacked)
    except zstandard.ZstdError as error:
        size = target.stat().st_size
        losses.add(f"{path.name}: cannot be decompressed completely ({error}); got {size} bytes")
    return target


def _log_ns(message: Message) -> int:
    return message.log_ns


def latched(bag: Bag, before_ns: int) -> list[Message]:
    """Messages that a subscriber joining at ``before_ns`` would receive, oldest first.

    The last message of each latched topic; of tf_static, all messages with the last value of a transform.
    """
    streams = dict.fromkeys(
        c.stream for c in bag.connections if is_latched(c.qos) or _is_tf_static(c.topic, c.msgtype)
    )
    found: list[Message] = []
    for topic, msgtype, encoding in streams:
        newest_first = bag.newest_first((topic, msgtype, encoding), before_ns)
        if _is_tf_static(topic, msgtype):
            found += _last_transforms(newest_first)
        else:
            found += [message for message, _ in zip(newest_first, range(1))]
    return sorted(found, key=lambda message: message.log_ns)


def _is_tf_static(topic: str, msgtype: str) -> bool:
    return topic.endswith("/tf_static") and msgtype == _TRANSFORMS


def _last_transforms(newest_first: Iterable[Message]) -> list[Message]:
    seen: set[str] = set()
    found = []
    for message in newest_first:
        try:
            transforms = from_cdr(message.data, _TRANSFORMS).transforms
        except MessageError:
            continue
        frames = {str(transform.child_frame_id) for transform in transforms}
        if frames - seen:
            found.append(message)
        seen |= frames
    return found[::-1]
