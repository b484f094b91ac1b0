# SPDX-License-Identifier: Apache-2.0
"""Locates the messages of an mcap file by the heads of its records, up to the first damage.

The ``mcap`` package's readers trust the index at the end, which some files lack and others have wrong. Here only the
message indexes behind the chunks are used, where they agree with the chunks; other chunks are read.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import lz4.frame
import numpy as np
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Metadata, Schema, Statistics
from mcap.writer import MCAP0_MAGIC
from numpy.typing import NDArray

from canet_ros.bags.bag import MAX_UNPACKED_BYTES, BagError, Connection, Losses, type_name, unzstd
from canet_ros.bags.qos import policies_as_numbers

QOS_KEY, HASH_KEY = "offered_qos_profiles", "topic_type_hash"
_MAX_RUN_BYTES = 1 << 20
HEAD = struct.Struct("<BQ")
MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK = struct.Struct("<QQQ")  # first and last time, size
# Raised by the package's parsers and by the decompressors for damaged data.
DAMAGE = (McapError, ValueError, struct.error, OverflowError, MemoryError, RuntimeError, zstandard.ZstdError)
_PARSERS: dict[int, type[Schema | Channel | Metadata | Statistics]] = {
    Opcode.SCHEMA: Schema,
    Opcode.CHANNEL: Channel,
    Opcode.METADATA: Metadata,
    Opcode.STATISTICS: Statistics,
}


@dataclass(frozen=True)
class Block:
    """Contiguous messages: a chunk, or a run of messages outside of chunks; times in ns.

    Attributes:
        offset, length: in the file, in bytes, including record headers.
        size: decompressed, in bytes.
        counts: messages by channel.
    """

    start_ns: int
    end_ns: int
    offset: int
    length: int
    size: int
    counts: Mapping[int, int]


@dataclass
class _FoundChunk:
    """A chunk with its declared range, and the times by channel from the message indexes behind it."""

    offset: int
    length: int
    start_ns: int
    end_ns: int
    size: int
    times: dict[int, NDArray[np.uint64]] = field(default_factory=dict)

    def all_times(self) -> NDArray[np.uint64]:
        return np.concatenate([np.zeros(0, np.uint64), *self.times.values()])


class McapContents:
    """Contents of an mcap file.

    Attributes:
        file: opened for reading.
        by_channel: topics.
        attachments: offset and length of each record, in bytes.

    Raises:
        BagError: it cannot be opened, or is not an mcap file.
    """

    def __init__(self, path: Path) -> None:
        self.losses = Losses()
        self.connections: list[Connection] = []
        self.blocks: list[Block] = []
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self.by_channel: dict[int, Connection] = {}
        self.attachments: list[tuple[int, int]] = []
        self._name = path.name
        self._schemas: dict[int, Schema] = {}
        self._announced: int | None = None
        try:
            self.file: BinaryIO = path.open("rb")
        except OSError as error:
            raise BagError(f"cannot open {path}: {error.strerror}") from error
        try:
            self._size = path.stat().st_size
            if self._size == 0:
                raise BagError(f"{path} is empty: 0 bytes")
            if self.file.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
                raise BagError(f"{path} is not an mcap file: it does not start with mcap's magic bytes")
            self._add_chunks(self._walk())
        except BaseException:
            self.file.close()
            raise
        if self._announced is None:
            self.losses.add(f"{self._name}: no statistics: cannot check whether it is complete")
            return
        missing = self._announced - sum(sum(block.counts.values()) for block in self.blocks)
        if missing > 0:
            sentence = f"its statistics count {missing} messages more than it holds"
            self.losses.add(f"{self._name}: {sentence}", "statistics", missing)

    def records_of(self, block: Block) -> tuple[memoryview, str]:
        """Decompressed bytes of the block, as far as possible, and a description of any damage."""
        self.file.seek(block.offset)
        if self.file.read(1) != bytes([Opcode.CHUNK]):
            self.file.seek(block.offset)
            return memoryview(self.file.read(block.length)), ""
        self.file.seek(block.offset + HEAD.size)
        try:
            chunk = Chunk.read(ReadDataStream(self.file))
            if len(chunk.data) > block.length:
                raise McapError("it is larger than its record")
            records = _unpacked(chunk)
        except DAMAGE as error:
            return memoryview(b""), str(error) or type(error).__name__
        if len(records) != chunk.uncompressed_size:
            return memoryview(records), f"{len(records)} bytes instead of {chunk.uncompressed_size}"
        wrong = chunk.uncompressed_crc and zlib.crc32(records) != chunk.uncompressed_crc
        return memoryview(records), "its checksum is wrong" if wrong else ""

    def _read(self, at: int, length: int) -> bytes:
        self.file.seek(at)
        return self.file.read(length)

    def _walk(self) -> list[_FoundChunk]:
        """Read everything but the chunks' contents, from record to record up to the first damage; return the chunks."""
        chunks: list[_FoundChunk] = []
        at, opcode = len(MCAP0_MAGIC), 0
        while opcode != Opcode.FOOTER and at + HEAD.size <= self._size:
            head = self._read(at, HEAD.size + _CHUNK.size)
            opcode, length = HEAD.unpack_from(head)
            end = at + HEAD.size + length
            known = 0 < opcode <= Opcode.DATA_END or opcode >= 0x80
            if not known or (end > self._size and opcode != Opcode.CHUNK):
                break
            end = min(end, self._size)
            try:
                if opcode == Opcode.CHUNK:
                    chunks.append(_FoundChunk(at, end - at, *_CHUNK.unpack_from(head, HEAD.size)))
                elif opcode == Opcode.MESSAGE_INDEX and chunks:
                    content = self._read(at + HEAD.size, length)
                    # channel and length, then pairs of time and offset
                    chunks[-1].times[content[0] | content[1] << 8] = np.frombuffer(content, "<u8", -1, 6)[::2]
                elif opcode == Opcode.MESSAGE:
                    channel, _, log_ns, _ = MESSAGE.unpack_from(head, HEAD.size)
                    self._add_message(channel, log_ns, at, end)
                elif opcode == Opcode.ATTACHMENT:
                    self.attachments.append((at, end - at))
                elif opcode in _PARSERS:
                    self._define(opcode, self._read(at + HEAD.size, length))
            except DAMAGE as error:
                self.losses.add(f"{self._name}: the record at byte {at} is damaged ({error})")
            at = end
        if opcode != Opcode.FOOTER or self._read(self._size - len(MCAP0_MAGIC), 8) != MCAP0_MAGIC:
            self.losses.add(f"{self._name}: no footer: truncated, or never closed")
        if opcode != Opcode.FOOTER and at < self._size:
            self.losses.add(
                f"{self._name}: damaged at byte {at}: the remaining {self._size - at} bytes are lost; "
                f"mcap recover {self._name} -o NEW.mcap may recover more"
            )
        return chunks

    def _add_chunks(self, chunks: list[_FoundChunk]) -> None:
        """Add chunks as blocks.

        Some writers store wrong time ranges or indexes. A chunk's messages are read unless its range and its message
        indexes agree. The first chunk is always read: if its times differ from a range that agrees, all are read.
        """
        trusted = True
        for number, chunk in enumerate(chunks):
            times = chunk.all_times()
            agrees = len(times) > 0 and (chunk.start_ns, chunk.end_ns) == (times.min(), times.max())
            agrees = agrees and chunk.start_ns > 0 and self.by_channel.keys() >= chunk.times.keys()
            counts: Mapping[int, int] = {
                c: len(entries) for c, entries in chunk.times.items() if len(entries)
            }
            size = chunk.size
            if not (agrees and trusted and number):
                records, problem = self.records_of(Block(0, 0, chunk.offset, chunk.length, 0, {}))
                size, heads = len(records), []
                for opcode, content in records_in(records):
                    if opcode == Opcode.MESSAGE and len(content) >= MESSAGE.size:
                        heads.append(MESSAGE.unpack_from(content))
                    elif opcode in _PARSERS:
                        with contextlib.suppress(*DAMAGE):
                            self._define(opcode, content)
                read = np.array([log_ns for _, _, log_ns, _ in heads], np.uint64)
                if agrees and not problem and not np.array_equal(np.sort(times), np.sort(read)):
                    self.losses.add(f"{self._name}: the times in the index differ from those of the messages")
                    trusted = False
                if not problem or len(heads) > len(times):
                    counts, times = Counter(channel for channel, *_ in heads), read
                elif not counts:
                    self.losses.add(
                        f"{self._name}: the chunk at byte {chunk.offset} cannot be read ({problem})"
                    )
            if len(times):
                block = Block(int(times.min()), int(times.max()), chunk.offset, chunk.length, size, counts)
                self.blocks.append(block)

    def _add_message(self, channel: int, log_ns: int, at: int, end: int) -> None:
        """Add a message outside of chunks, to the run that it continues or to a new one."""
        run = self.blocks[-1] if self.blocks else None
        if run is not None and run.offset + run.length == at and run.length < _MAX_RUN_BYTES:
            self.blocks.pop()
            counts = {**run.counts, channel: run.counts.get(channel, 0) + 1}
            times, length = (run.start_ns, run.end_ns, log_ns), end - run.offset
            self.blocks.append(Block(min(times), max(times), run.offset, length, length, counts))
        else:
            self.blocks.append(Block(log_ns, log_ns, at, end - at, end - at, {channel: 1}))

    def _define(self, opcode: int, content: bytes | memoryview) -> None:
        record = _PARSERS[opcode].read(stream_of(content))
        if isinstance(record, Metadata):
            self.metadata.append((record.name, record.metadata))
        elif isinstance(record, Statistics):
            self._announced = max(record.message_count, sum(record.channel_message_counts.values()))
        elif isinstance(record, Schema):
            self._schemas.setdefault(record.id, record)
        elif record.id not in self.by_channel:
            schema = self._schemas.get(record.schema_id, Schema(0, b"", "", ""))
            metadata = dict(record.metadata)
            connection = Connection(
                record.topic,
                type_name(schema.name) if record.message_encoding == "cdr" else schema.name,
                record.message_encoding,
                policies_as_numbers(metadata.pop(QOS_KEY, "")),
                schema.encoding,
                schema.data,
                metadata.pop(HASH_KEY, ""),
                tuple(metadata.items()),
            )
            self.by_channel[record.id] = connection
            if connection not in self.connections:
                self.connections.append(connection)


def stream_of(content: bytes | memoryview) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(content))


def records_in(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield opcode and content of each complete record."""
    at = 0
    while at + HEAD.size <= len(data):
        opcode, length = HEAD.unpack_from(data, at)
        end = at + HEAD.size + length
        if (
            end > len(data) or opcode == 0
        ):  # not a record; a block of zeros would parse as millions of empty ones
            return
        yield opcode, data[at + HEAD.size : end]
        at = end


def _unpacked(chunk: Chunk) -> bytes:
    """Decompress a chunk, to its declared size at most; a truncated chunk yields what is left of it."""
    size = chunk.uncompressed_size
    if size > MAX_UNPACKED_BYTES:
        raise McapError(f"{size} bytes declared; the limit is {MAX_UNPACKED_BYTES}")
    if chunk.compression == "zstd":
        return unzstd(chunk.data, size)
    if chunk.compression == "lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=size))
    if chunk.compression:
        raise McapError(f"compression {chunk.compression!r} is unknown")
    return bytes(chunk.data)
