# SPDX-License-Identifier: Apache-2.0
"""Locates the messages of an mcap file: by its index, or by a scan up to the first damage.

The ``mcap`` package's readers trust the index, and stop at the first damaged byte. Here the index is used only if its
counts match the statistics; damaged parts are skipped and counted.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import lz4.frame
import numpy as np
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, ChunkIndex, MessageIndex, Metadata, Schema, Statistics
from mcap.stream_reader import StreamReader
from mcap.summary import Summary
from mcap.writer import MCAP0_MAGIC
from numpy.typing import NDArray

from canet_ros.bags.bag import MAX_UNPACKED_BYTES, BagError, Connection, Losses, type_name, unzstd
from canet_ros.bags.qos import policies_as_numbers

QOS_KEY, HASH_KEY = "offered_qos_profiles", "topic_type_hash"
_MAX_RUN_BYTES = 1 << 20
HEAD = struct.Struct("<BQ")
MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_FOOTER_BYTES = HEAD.size + 20 + len(MCAP0_MAGIC)
# Raised by the package's parsers and by the decompressors for damaged data.
DAMAGE = (McapError, ValueError, struct.error, OverflowError, MemoryError, RuntimeError, zstandard.ZstdError)


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
        self._name = path.name
        self._announced = 0
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
            self._reset()
            if not self._read_index():
                self._reset()
                self._scan()
        except BaseException:
            self.file.close()
            raise

    def _reset(self) -> None:
        self.connections: list[Connection] = []
        self.blocks: list[Block] = []
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self._schemas: dict[int, Schema] = {}
        self.by_channel: dict[int, Connection] = {}
        self.attachments: list[tuple[int, int]] = []

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

    def _read_index(self) -> bool:
        """Read the summary; False if it does not locate every message."""
        try:
            summary = self._summary()
            if summary is None:
                return False
            statistics = summary.statistics
            if statistics is None:
                self.losses.add(f"{self._name}: no statistics; read from beginning to end")
                return False
            announced = {channel: n for channel, n in statistics.channel_message_counts.items() if n}
            self._announced = max(statistics.message_count, sum(announced.values()))
            for definition in (*summary.schemas.values(), *summary.channels.values()):
                self._define(definition)
            indexed: Counter[int] = Counter()
            for index in summary.chunk_indexes:
                self._add_block(index.chunk_start_offset, index.chunk_length, index)
            for block in self.blocks:
                indexed.update(block.counts)
            for place in summary.metadata_indexes:
                self.file.seek(place.offset)
                self._define(Metadata.read(stream_of(self.file.read(place.length)[HEAD.size :])))
            self.attachments = [(place.offset, place.length) for place in summary.attachment_indexes]
        except DAMAGE as error:
            reason = str(error) or type(error).__name__
            self.losses.add(f"{self._name}: the index is damaged ({reason}); read from beginning to end")
            return False
        extras = (len(self.attachments), len(self.metadata))
        return (
            indexed == announced
            and sum(announced.values()) == self._announced
            and self.by_channel.keys() >= indexed.keys()
            and extras == (statistics.attachment_count, statistics.metadata_count)
            and not self._holds_more_than(summary.chunk_indexes)
        )

    def _holds_more_than(self, indexes: list[ChunkIndex]) -> bool:
        """Whether messages lie outside of the chunks that the index names: statistics may lack them as well."""
        ends = {
            index.chunk_start_offset: index.chunk_start_offset
            + index.chunk_length
            + index.message_index_length
            for index in indexes
        }
        at = len(MCAP0_MAGIC)
        while at + HEAD.size <= self._size:
            if at in ends:
                at = max(ends[at], at + HEAD.size)
                continue
            self.file.seek(at)
            opcode, length = HEAD.unpack(self.file.read(HEAD.size))
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                return False
            if opcode in (Opcode.CHUNK, Opcode.MESSAGE):
                return True
            at += HEAD.size + length
        return False

    def _summary(self) -> Summary | None:
        self.file.seek(max(0, self._size - _FOOTER_BYTES))
        footer = self.file.read()
        whole = footer.endswith(MCAP0_MAGIC) and footer[: HEAD.size] == HEAD.pack(Opcode.FOOTER, 20)
        if not whole:
            self.losses.add(f"{self._name}: no footer: truncated, or never closed")
            return None
        start, _, checksum = struct.unpack_from("<QQI", footer, HEAD.size)
        if not 0 < start <= self._size - _FOOTER_BYTES:
            self.losses.add(f"{self._name}: no index; read from beginning to end")
            return None
        self.file.seek(start)
        data = self.file.read()
        if checksum and zlib.crc32(data[: -len(MCAP0_MAGIC) - 4]) != checksum:
            raise McapError("checksum")
        summary = Summary()
        for record in StreamReader(io.BytesIO(data), skip_magic=True).records:
            if isinstance(record, Statistics):
                summary.statistics = record
            elif isinstance(record, Schema):
                summary.schemas[record.id] = record
            elif isinstance(record, Channel):
                summary.channels[record.id] = record
            elif type(record).__name__.endswith("Index"):
                indexes = {
                    "ChunkIndex": summary.chunk_indexes,
                    "AttachmentIndex": summary.attachment_indexes,
                    "MetadataIndex": summary.metadata_indexes,
                }
                indexes[type(record).__name__].append(record)
        return summary

    def _add_block(self, offset: int, length: int, index: ChunkIndex | None = None) -> None:
        """Add a chunk.

        Some writers store wrong time ranges. A range is used only if the message indexes behind the chunk confirm it;
        else, and in the first chunk, the messages themselves are read.
        """
        if offset + length > self._size and index is not None:
            raise McapError("it names a chunk beyond the end of the file")
        times = self._message_index(offset + length)
        counts: Mapping[int, int] = {
            channel: len(entries) for channel, entries in times.items() if len(entries)
        }
        found = np.concatenate([np.zeros(0, np.uint64), *times.values()])
        size = index.uncompressed_size if index else 0
        confirmed = index is not None and _confirms(found, index)
        if not confirmed or not self.blocks:
            records, problem = self.records_of(Block(0, 0, offset, length, 0, {}))
            size, heads = len(records), []
            for opcode, content in records_in(records):
                if opcode == Opcode.MESSAGE and len(content) >= MESSAGE.size:
                    heads.append(MESSAGE.unpack_from(content))
                elif opcode in _PARSERS:
                    self._define(_PARSERS[opcode].read(stream_of(content)))
            times_in_it = np.array([log_ns for _, _, log_ns, _ in heads], np.uint64)
            if confirmed and not problem and not np.array_equal(np.sort(found), np.sort(times_in_it)):
                raise McapError("its times differ from those of the messages")
            if not problem or len(heads) > len(found):
                counts = Counter(channel for channel, *_ in heads)
                found = times_in_it
            elif not counts:
                self.losses.add(f"{self._name}: the chunk at byte {offset} cannot be read ({problem})")
        if len(found):
            self.blocks.append(Block(int(found.min()), int(found.max()), offset, length, size, counts))

    def _message_index(self, at: int) -> dict[int, NDArray[np.uint64]]:
        """Times by channel, from the message indexes behind a chunk."""
        times = {}
        self.file.seek(at)
        while len(head := self.file.read(HEAD.size)) == HEAD.size:
            opcode, length = HEAD.unpack(head)
            if opcode != Opcode.MESSAGE_INDEX or self.file.tell() + length > self._size:
                break
            entries = MessageIndex.read(stream_of(self.file.read(length)))
            times[entries.channel_id] = np.array([log_ns for log_ns, _ in entries.records], np.uint64)
        return times

    def _scan(self) -> None:
        """Scan the file from beginning to end, up to the first damaged record."""
        at = len(MCAP0_MAGIC)
        opcode = 0
        while at + HEAD.size <= self._size:
            self.file.seek(at)
            opcode, length = HEAD.unpack(self.file.read(HEAD.size))
            end = at + HEAD.size + length
            known = 0 < opcode <= Opcode.DATA_END or opcode >= 0x80
            if (
                opcode in (Opcode.DATA_END, Opcode.FOOTER)
                or not known
                or (end > self._size and opcode != Opcode.CHUNK)
            ):
                break
            try:
                if opcode == Opcode.CHUNK:
                    self._add_block(at, min(end, self._size) - at)
                elif opcode == Opcode.MESSAGE:
                    channel, _, log_ns, _ = MESSAGE.unpack(self.file.read(MESSAGE.size))
                    self._add_message(channel, log_ns, at, end)
                elif opcode == Opcode.ATTACHMENT:
                    self.attachments.append((at, end - at))
                elif opcode in _PARSERS:
                    self._define(_PARSERS[opcode].read(stream_of(self.file.read(length))))
            except DAMAGE as error:
                self.losses.add(f"{self._name}: the record at byte {at} is damaged ({error})")
            at = min(end, self._size)
        if opcode not in (Opcode.DATA_END, Opcode.FOOTER) and at < self._size:
            self.losses.add(
                f"{self._name}: damaged at byte {at}: the remaining {self._size - at} bytes are lost; "
                f"mcap recover {self._name} -o NEW.mcap may recover more"
            )
        missing = self._announced - sum(sum(block.counts.values()) for block in self.blocks)
        if missing > 0:
            sentence = f"its statistics count {missing} messages more than it holds"
            self.losses.add(f"{self._name}: {sentence}", "statistics", missing)

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

    def _define(self, record: Schema | Channel | Metadata) -> None:
        if isinstance(record, Metadata):
            self.metadata.append((record.name, record.metadata))
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


_PARSERS: dict[int, type[Schema | Channel | Metadata]] = {
    Opcode.SCHEMA: Schema,
    Opcode.CHANNEL: Channel,
    Opcode.METADATA: Metadata,
}


def stream_of(content: bytes | memoryview) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(content))


def _confirms(times: NDArray[np.uint64], index: ChunkIndex) -> bool:
    """Whether message indexes confirm a chunk's range; some writers store 0 if they do not know it."""
    if not len(times) or index.message_start_time == 0:
        return False
    return (index.message_start_time, index.message_end_time) == (int(times.min()), int(times.max()))


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
