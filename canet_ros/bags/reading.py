# SPDX-License-Identifier: Apache-2.0
"""Opens a bag, complete or damaged: a folder, with or without metadata.yaml, or a single file."""

from __future__ import annotations

import heapq
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import zstandard
from mcap.records import Attachment
from mcap.writer import MCAP0_MAGIC

from canet_ros.bags.bag import (
    ZSTD_MAGIC,
    BagError,
    Block,
    Connection,
    Losses,
    Message,
    Stream,
    Streams,
)
from canet_ros.bags.mcap_reader import McapFile
from canet_ros.bags.message_types import with_definition
from canet_ros.bags.metadata import METADATA_FILE, file_paths, read_metadata, topics_of
from canet_ros.bags.sqlite_reader import SqliteFile

StorageFile = McapFile | SqliteFile
_SQLITE_MAGIC = b"SQLite format 3\0"
_KNOWN_VERSION = 9
_TIME_LIMIT_NS = 2**64
# Limit for blocks that overlap in time, which are in memory at once.
_MAX_OVERLAP_BYTES = 256 << 20


class Bag:
    """An opened bag. Use as a context manager.

    Args:
        contents: of metadata.yaml; empty if it is missing or broken.

    Attributes:
        connections: topics with their types, including those without messages.
        counts: messages of each topic.
        start_ns, end_ns: first and last time.
        custom: custom data of its metadata.
        topics: QoS and hash of the type by topic and type, as metadata.yaml has them.
        distribution: ROS distribution that recorded it; empty: unknown.
        notes: sentences about the bag that do not concern damage.
        metadata: metadata records of other programs in mcap files.
    """

    def __init__(
        self, path: Path, files: list[StorageFile], contents: dict[str, Any], losses: Losses
    ) -> None:
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
        self.metadata = [record for record in records if record[0] not in ("rosbag2", "canet_ros")]
        self.custom = {
            key: value for name, entries in records if name == "canet_ros" for key, value in entries.items()
        }
        self.custom |= {str(key): str(value) for key, value in (contents.get("custom_data") or {}).items()}
        self.topics = topics_of(contents)
        self.distribution = str(contents.get("ros_distro") or "")
        self.notes: list[str] = []
        version = contents.get("version")
        if isinstance(version, int) and version > _KNOWN_VERSION:
            self.notes.append(
                f"{METADATA_FILE} has version {version}; the newest supported one is {_KNOWN_VERSION}"
            )
        announced = contents.get("message_count")
        # That beside a single file may count other files, too.
        is_whole = path.is_dir() or len(contents.get("relative_file_paths") or ()) == 1
        if isinstance(announced, int) and is_whole:
            held = sum(block.count for block in blocks)
            sentence = f"{METADATA_FILE} counts {announced} messages, but {held} could be read"
            if (missing := announced - held - self.all_losses().count) > 0:
                self.losses.add(sentence, METADATA_FILE, missing)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            file.close()

    def messages(
        self, start_ns: int | None = None, end_ns: int | None = None, streams: Streams = None
    ) -> Iterator[Message]:
        """Yield messages by log time over all files, in file order if bounded memory does not permit that.

        Args:
            start_ns, end_ns: ``start_ns`` <= log time < ``end_ns``; None: no limit.
            streams: None: all.
        """
        first_ns, limit_ns = start_ns or 0, _TIME_LIMIT_NS if end_ns is None else end_ns
        blocks = [
            b for b in self.blocks_with(streams) if b[0].start_ns < limit_ns and b[0].end_ns >= first_ns
        ]
        in_time_order = _largest_overlap_bytes([block for block, _ in blocks]) <= _MAX_OVERLAP_BYTES
        if in_time_order:
            blocks.sort(key=lambda entry: entry[0].start_ns)
        else:
            self.losses.add("too many messages are out of order; reading in file order")
        begun: list[tuple[int, int, Message, Iterator[Message]]] = []
        later = blocks[::-1]
        while later or begun:
            # Blocks that were begun are in memory, so a block is begun only at its start time.
            while later and (not begun or (in_time_order and later[-1][0].start_ns <= begun[0][0])):
                block, file = later.pop()
                messages = file.read(block)
                if (first := next(messages, None)) is not None:
                    heapq.heappush(begun, (first.log_ns, -len(later), first, messages))
            if not begun:
                continue
            _, order, message, messages = begun[0]
            if (following := next(messages, None)) is not None:
                heapq.heapreplace(begun, (following.log_ns, order, following, messages))
            else:
                heapq.heappop(begun)
            is_wanted = streams is None or message.connection.stream in streams
            if is_wanted and first_ns <= message.log_ns < limit_ns:
                yield message

    def newest_first(self, stream: Stream, before_ns: int) -> Iterator[Message]:
        """A stream's messages before ``before_ns``, newest first; reads only the parts of the files with them."""
        blocks = [b for b in self.blocks_with({stream}) if b[0].start_ns < before_ns]
        blocks.sort(key=lambda entry: entry[0].end_ns)
        found: list[Message] = []
        while blocks or found:
            while found and not (blocks and blocks[-1][0].end_ns > found[-1].log_ns):
                yield found.pop()
            if blocks:
                block, file = blocks.pop()
                messages = (message for message in file.read(block) if message.log_ns < before_ns)
                found += [message for message in messages if message.connection.stream == stream]
                found.sort(key=lambda message: message.log_ns)

    def first_messages(self, wanted: Collection[Connection]) -> Iterator[tuple[str, bytes]]:
        """Yield topic and data of the first message of each connection."""
        for stream in {connection.stream for connection in wanted}:
            for message in self.messages(streams={stream}):
                yield message.connection.topic, message.data
                break

    def blocks_with(self, streams: Streams) -> list[tuple[Block, StorageFile]]:
        """Blocks with messages of these streams; None: all."""
        return [
            (block, file)
            for file in self.files
            for block in file.blocks
            if streams is None
            or any(n in file.by_number and file.by_number[n].stream in streams for n in block.numbers)
        ]

    def attachments(self) -> Iterator[Attachment]:
        """Attachments of mcap files, see ``McapFile.attachments``."""
        for file in self.files:
            if isinstance(file, McapFile):
                yield from file.attachments()

    def all_losses(self) -> Losses:
        """Losses found so far, in all files."""
        total = Losses()
        for prefix, losses in [
            ("", self.losses),
            *((f"{n}:", file.losses) for n, file in enumerate(self.files)),
        ]:
            total.merge(losses, prefix)
        return total


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
    files: list[StorageFile] = []
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


def completed(connection: Connection, bag: Bag) -> Connection:
    """A connection with missing entries filled in.

    QoS and type hash come from metadata.yaml, the definition from the distribution's types.
    """
    qos, type_hash = bag.topics.get((connection.topic, connection.msgtype), ("", ""))
    whole = replace(connection, qos=connection.qos or qos, type_hash=connection.type_hash or type_hash)
    return with_definition(whole, bag.distribution)


def _open_file(path: Path, work: Path, losses: Losses) -> StorageFile:
    with path.open("rb") as file:
        magic = file.read(16)
    if magic[:4] == ZSTD_MAGIC:
        path = _unpacked_file(path, work, losses)
        with path.open("rb") as file:
            magic = file.read(16)
    if magic == _SQLITE_MAGIC:
        return SqliteFile(path, work)
    if magic.startswith(MCAP0_MAGIC[:5]) or path.suffix == ".mcap":
        return McapFile(path)
    if not magic:
        raise BagError(f"{path} is empty: 0 bytes")
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


def _largest_overlap_bytes(blocks: Sequence[Block]) -> int:
    """Peak memory in bytes of reading blocks by time, beyond the largest block."""
    changes = sorted(
        change
        for block in blocks
        for change in ((block.start_ns, 0, block.size), (block.end_ns, 1, -block.size))
    )
    largest = now = 0
    for _, _, change in changes:
        now += change
        largest = max(largest, now)
    return largest - max((block.size for block in blocks), default=0)
