# SPDX-License-Identifier: Apache-2.0
"""Opens a bag, whole or not: a folder with or without its metadata.yaml, or a single file."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import zstandard
from mcap.records import Attachment
from mcap.writer import MCAP0_MAGIC

from canet_ros.bags.bag import (
    ZSTD_MAGIC,
    BagError,
    Connection,
    Losses,
    Message,
    StorageFile,
    Stream,
    Streams,
)
from canet_ros.bags.mcap_reader import McapFile
from canet_ros.bags.message_types import with_definition
from canet_ros.bags.metadata import METADATA_FILE, file_paths, read_metadata, topics_of
from canet_ros.bags.sqlite_reader import SqliteFile

_SQLITE_MAGIC = b"SQLite format 3\0"
_KNOWN_VERSION = 9
_TIME_LIMIT_NS = 2**64
_PIECE_BYTES = 1 << 16


@dataclass
class Bag:
    """An opened bag. Use as a context manager.

    Attributes:
        connections: topics with their types, those without messages too.
        counts: messages of each topic; empty where a file is too damaged to tell.
        start_ns, end_ns: first and last time.
        custom: what programs wrote into its metadata.
        topics: QoS and hash of the type by topic and type, as metadata.yaml has them.
        distribution: of ROS, with which it was recorded; empty: not known.
        notes: sentences about it that are no damage.
        metadata: records of other programs in mcap files.
    """

    path: Path
    files: list[StorageFile]
    connections: list[Connection]
    counts: dict[str, int]
    start_ns: int
    end_ns: int
    custom: dict[str, str]
    topics: dict[tuple[str, str], tuple[str, str]]
    distribution: str
    announced: int | None
    losses: Losses = field(default_factory=Losses)
    notes: list[str] = field(default_factory=list)
    metadata: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            file.close()

    def messages(
        self, start_ns: int | None = None, end_ns: int | None = None, streams: Streams = None
    ) -> Iterator[tuple[int, Message]]:
        """Messages with the number of their file, in the order of time over all files.

        Whoever takes all messages to the end has them counted: what metadata.yaml announces beyond them is lost.

        Args:
            start_ns, end_ns: from the former on and before the latter; None: all.
            streams: the topics that are wanted; None: all.
        """
        for file in self.files:
            file.out_of_order = 0
        limits = start_ns or 0, _TIME_LIMIT_NS if end_ns is None else end_ns
        starts = [
            (file.start_ns, number) for number, file in enumerate(self.files) if file.start_ns is not None
        ]
        later = sorted(start for start in starts if start[0] < limits[1])[::-1]
        begun: list[tuple[int, int, Message, Iterator[Message]]] = []
        read = 0
        while later or begun:
            # A file is begun when its time has come: each holds some of its messages in memory.
            while later and not (begun and begun[0][0] < later[-1][0]):
                _, number = later.pop()
                messages = self.files[number].messages(*limits, streams)
                if (first := next(messages, None)) is not None:
                    heapq.heappush(begun, (first.log_ns, number, first, messages))
            if not begun:
                continue
            _, number, message, messages = begun[0]
            read += 1
            yield number, message
            if (following := next(messages, None)) is not None:
                heapq.heapreplace(begun, (following.log_ns, number, following, messages))
            else:
                heapq.heappop(begun)
        if (start_ns, end_ns, streams) == (None, None, None):
            missing = (self.announced or 0) - read - self.all_losses().messages
            if missing > 0:
                sentence = f"{METADATA_FILE} announces {self.announced} messages, {read} could be read"
                self.losses.say(sentence, METADATA_FILE, missing)

    def first_messages(self, wanted: Collection[Connection]) -> Iterator[tuple[str, bytes]]:
        """Topic and data of the first message of each of these that has one."""
        for stream in {connection.stream for connection in wanted}:
            for _, message in self.messages(streams={stream}):
                yield message.connection.topic, message.data
                break

    def newest_first(self, stream: Stream, before_ns: int) -> Iterator[Message]:
        """A topic's messages before ``before_ns`` over all files, see ``StorageFile.newest_first``."""
        by_file = (file.newest_first(stream, before_ns) for file in self.files)
        return heapq.merge(*by_file, key=lambda message: message.log_ns, reverse=True)

    def attachments(self) -> Iterator[Attachment]:
        """Those of mcap files, see ``McapFile.attachments``."""
        for file in self.files:
            if isinstance(file, McapFile):
                yield from file.attachments()

    def all_losses(self) -> Losses:
        """What was found missing so far, in all files."""
        total = Losses(dict(self.losses.sentences), dict(self.losses.lost))
        for number, file in enumerate(self.files):
            total.sentences.update(file.losses.sentences)
            total.lost.update({(number, where): count for where, count in file.losses.lost.items()})
        return total

    def out_of_order(self) -> int:
        return sum(file.out_of_order for file in self.files)


def open_bag(path: Path, work: Path) -> Bag:
    """Open a bag.

    Args:
        path: folder, or file (.mcap, .db3, or either with .zstd behind it).
        work: folder of our own for what has to be unpacked; made when it is needed.

    Raises:
        BagError: there is no bag of which anything can be read.
    """
    if not path.exists():
        raise BagError(f"{path} does not exist")
    if path.name == METADATA_FILE:
        path = path.parent
    losses = Losses()
    metadata = read_metadata(path, losses)
    notes = []
    version = metadata.get("version")
    if isinstance(version, int) and version > _KNOWN_VERSION:
        notes.append(
            f"{METADATA_FILE} is of version {version}, newer than {_KNOWN_VERSION}, which is known here"
        )
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
        raise BagError(
            problems[0] if len(problems) == 1 else f"nothing of {path} can be read: {'; '.join(problems)}"
        )
    for problem in problems:
        losses.say(problem)
    if not path.is_dir() and not metadata and isinstance(files[0], SqliteFile):
        losses.say(
            f"{path.name}: there is no {METADATA_FILE} beside it, so it cannot be told whether it is whole"
        )
    return _bag(path, files, metadata, losses, notes)


def _bag(
    path: Path, files: list[StorageFile], metadata: dict[str, Any], losses: Losses, notes: list[str]
) -> Bag:
    distribution = str(metadata.get("ros_distro") or "")
    connections: list[Connection] = []
    counts: dict[str, int] = {}
    for file in files:
        connections += [connection for connection in file.connections if connection not in connections]
        for connection, count in file.counts.items():
            counts[connection.topic] = counts.get(connection.topic, 0) + count
    if any(file.connections and not file.counts for file in files):
        counts = {}
    starts = [file.start_ns for file in files if file.start_ns is not None]
    ends = [file.end_ns for file in files if file.end_ns is not None]
    custom = {str(key): str(value) for key, value in (metadata.get("custom_data") or {}).items()}
    records = [record for file in files if isinstance(file, McapFile) for record in file.metadata]
    for name, entries in records:
        if name == "canet_ros":
            custom = {**entries, **custom}
    announced = metadata.get("message_count")
    if not path.is_dir() and len(metadata.get("relative_file_paths") or ()) != 1:
        announced = None  # of other files, too
    return Bag(
        path,
        files,
        connections,
        counts,
        min(starts, default=0),
        max(ends, default=0),
        custom,
        topics_of(metadata),
        distribution,
        announced if isinstance(announced, int) else None,
        losses,
        notes,
        [record for record in records if record[0] not in ("rosbag2", "canet_ros")],
    )


def defined(connection: Connection, bag: Bag) -> Connection:
    """A connection with what its file does not say of it.

    QoS and hash of the type are then taken from metadata.yaml; the definition from the distribution's types.
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
        raise BagError(
            f"{path} is a bag of ROS 1: bring it to ROS 2 with rosbags-convert --src {path.name} --dst OUT"
        )
    raise BagError(f"{path} is no rosbag2: neither mcap nor a database of SQLite")


def _unpacked_file(path: Path, work: Path, losses: Losses) -> Path:
    """Unpack a compressed file, as far as it goes."""
    work.mkdir(parents=True, exist_ok=True)
    target = work / (path.stem if path.suffix in (".zstd", ".zst") else path.name)
    frame = zstandard.ZstdDecompressor().decompressobj()
    problem = ""
    with path.open("rb") as packed, target.open("wb") as unpacked:
        data = packed.read(_PIECE_BYTES)
        while data:
            try:
                unpacked.write(frame.decompress(data))
            except zstandard.ZstdError as error:
                problem = str(error)
                break
            data = frame.unused_data if frame.eof else b""
            data = data or packed.read(_PIECE_BYTES)
            if frame.eof and data:  # a file may hold many frames
                frame = zstandard.ZstdDecompressor().decompressobj()
    if not frame.eof and not problem:
        problem = "cut off"
    if problem:
        size = target.stat().st_size
        losses.say(f"{path.name}: it cannot be unpacked to its end ({problem}); {size} bytes of it could")
    return target
