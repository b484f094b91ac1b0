# SPDX-License-Identifier: Apache-2.0
"""Reads an mcap file with the ``mcap`` package's records: by its index, or from beginning to end as far as it goes.

The package's readers trust the index, and end at the first damaged byte. Here an index is used where its counts are
those of the statistics, and what is damaged is left out and counted.
"""

from __future__ import annotations

import heapq
import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import lz4.frame
import numpy as np
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Chunk, ChunkIndex, MessageIndex, Metadata, Schema, Statistics
from mcap.stream_reader import StreamReader
from mcap.summary import Summary
from mcap.writer import MCAP0_MAGIC
from numpy.typing import NDArray

from canet_ros.bags.bag import (
    MOST_UNPACKED_BYTES,
    BagError,
    Connection,
    Losses,
    Message,
    Stream,
    Streams,
    message_bytes,
    type_name,
    unzstd,
)
from canet_ros.bags.qos import policies_as_numbers

QOS_KEY, HASH_KEY = "offered_qos_profiles", "topic_type_hash"
# Chunks that overlap in time are held at once; where a file is so out of order that this is not enough, it is read as
# it was written.
_MAX_OVERLAP_BYTES = 256 << 20
_MAX_RUN_BYTES = 1 << 20
_HEAD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_FOOTER_BYTES = _HEAD.size + 20 + len(MCAP0_MAGIC)
# What the package's parsers and the decompressors throw at bytes that lie.
_DAMAGE = (McapError, ValueError, struct.error, OverflowError, MemoryError, RuntimeError, zstandard.ZstdError)


@dataclass(frozen=True)
class Block:
    """Messages that lie together: a chunk, or a run of messages outside of one; times in ns.

    Attributes:
        offset, length: in the file, in bytes, with the heads of records.
        size: when unpacked, in bytes.
        counts: messages by channel.
    """

    start_ns: int
    end_ns: int
    offset: int
    length: int
    size: int
    counts: Mapping[int, int]


class McapFile:
    """One mcap file.

    Raises:
        BagError: it cannot be opened, or is no mcap file.
    """

    def __init__(self, path: Path) -> None:
        self.losses = Losses()
        self.out_of_order = 0
        self._name = path.name
        self._announced = 0
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise BagError(f"cannot open {path}: {error.strerror}") from error
        try:
            self._size = path.stat().st_size
            if self._size == 0:
                raise BagError(f"{path} is empty: 0 bytes")
            if self._file.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
                raise BagError(f"{path} is no mcap file: it does not start as one")
            self._begin()
            if not self._take_index():
                self._begin()
                self._scan()
        except BaseException:
            self._file.close()
            raise
        self.start_ns = min((block.start_ns for block in self.blocks), default=None)
        self.end_ns = max((block.end_ns for block in self.blocks), default=None)
        self.in_time_order = _largest_overlap_bytes(self.blocks) <= _MAX_OVERLAP_BYTES
        self.counts = dict.fromkeys(self.connections, 0)
        for block in self.blocks:
            for channel, count in block.counts.items():
                if channel in self._by_channel:
                    self.counts[self._by_channel[channel]] += count

    def _begin(self) -> None:
        self.connections: list[Connection] = []
        self.blocks: list[Block] = []
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self._schemas: dict[int, Schema] = {}
        self._by_channel: dict[int, Connection] = {}
        self._attachments: list[tuple[int, int]] = []

    def close(self) -> None:
        self._file.close()

    def messages(self, start_ns: int, end_ns: int, streams: Streams = None) -> Iterator[Message]:
        blocks = [b for b in self._blocks_of(streams) if b.start_ns < end_ns and b.end_ns >= start_ns]
        if not self.in_time_order:
            self.losses.say(f"{self._name}: times are all mixed up; it is read in the order of its writing")
        for message in self._ordered(blocks, start_ns, end_ns):
            if streams is None or message.connection.stream in streams:
                yield message

    def newest_first(self, stream: Stream, before_ns: int) -> Iterator[Message]:
        blocks = [block for block in self._blocks_of({stream}) if block.start_ns < before_ns]
        blocks.sort(key=lambda block: block.end_ns)
        found: list[Message] = []
        while blocks or found:
            found.sort(key=lambda message: message.log_ns)
            while found and not (blocks and blocks[-1].end_ns > found[-1].log_ns):
                yield found.pop()
            if blocks:
                inside = self._messages_in(blocks.pop(), 0, before_ns)
                found += [message for message in inside if message.connection.stream == stream]

    def attachments(self) -> Iterator[Attachment]:
        """Those that can be read; what cannot is said."""
        for offset, length in self._attachments:
            try:
                self._file.seek(offset)
                data = self._file.read(length)
                if (data[:1], len(data)) != (bytes([Opcode.ATTACHMENT]), length):
                    raise McapError("it is not where the index has it")
                yield Attachment.read(_stream(data[_HEAD.size :]))
            except _DAMAGE as error:
                self.losses.say(f"{self._name}: the attachment at byte {offset} is lost ({error})")

    def _blocks_of(self, streams: Streams) -> Sequence[Block]:
        """Those that hold messages of these topics; None: of any."""
        if streams is None:
            return self.blocks
        channels = {number for number, other in self._by_channel.items() if other.stream in streams}
        return [block for block in self.blocks if not channels.isdisjoint(block.counts)]

    def _ordered(self, blocks: Sequence[Block], start_ns: int, end_ns: int) -> Iterator[Message]:
        """In the order of time, where that can be had in bounded memory."""
        waiting: list[tuple[int, int, int, Message]] = []
        last = (-1, -1)
        if not self.in_time_order:
            for block in sorted(blocks, key=lambda block: block.offset):
                yield from self._messages_in(block, start_ns, end_ns)
            return
        blocks = sorted(blocks, key=lambda block: (block.start_ns, block.offset))
        for index in range(len(blocks) + 1):
            limit_ns = blocks[index].start_ns if index < len(blocks) else None
            while waiting and (limit_ns is None or waiting[0][0] < limit_ns):
                _, offset, number, message = heapq.heappop(waiting)
                self.out_of_order += (offset, number) < last
                last = max(last, (offset, number))
                yield message
            if index < len(blocks):
                block = blocks[index]
                for number, message in enumerate(self._messages_in(block, start_ns, end_ns)):
                    heapq.heappush(waiting, (message.log_ns, block.offset, number, message))

    def _messages_in(self, block: Block, start_ns: int, end_ns: int) -> Iterator[Message]:
        records, problem = self._records_of(block)
        found = unknown = damaged = 0
        for opcode, content in _records(records):
            if opcode != Opcode.MESSAGE or len(content) < _MESSAGE.size:
                continue
            found += 1
            channel, sequence, log_ns, publish_ns = _MESSAGE.unpack_from(content)
            if not block.start_ns <= log_ns <= block.end_ns:
                self.losses.say(f"{self._name}: times in its index are not those of the messages")
            if not start_ns <= log_ns < end_ns:
                continue
            connection = self._by_channel.get(channel)
            if connection is None:
                unknown += 1
                continue
            try:
                data = message_bytes(bytes(content[_MESSAGE.size :]), connection)
            except (zstandard.ZstdError, MemoryError):
                damaged += 1
                continue
            yield Message(connection, log_ns, publish_ns, sequence, data)
        if unknown:
            sentence = "messages of a channel whose record is lost"
            self.losses.say(f"{self._name}: {sentence}", (block.offset, "unknown"), unknown)
        if damaged:
            sentence = "messages whose compression is damaged"
            self.losses.say(f"{self._name}: {sentence}", (block.offset, "damaged"), damaged)
        missing = sum(block.counts.values()) - found
        if problem or missing > 0:
            self.losses.say(
                f"{self._name}: the chunk at byte {block.offset} is damaged ({problem or 'it is too short'}); "
                f"{found} messages were read from it; mcap recover may find more",
                block.offset,
                missing,
            )

    def _records_of(self, block: Block) -> tuple[memoryview, str]:
        """The block's bytes, unpacked, as far as they can be; and what is wrong with them."""
        self._file.seek(block.offset)
        if self._file.read(1) != bytes([Opcode.CHUNK]):
            self._file.seek(block.offset)
            return memoryview(self._file.read(block.length)), ""
        self._file.seek(block.offset + _HEAD.size)
        try:
            chunk = Chunk.read(ReadDataStream(self._file))
            if len(chunk.data) > block.length:
                raise McapError("it is larger than its record")
            records = _unpacked(chunk)
        except _DAMAGE as error:
            return memoryview(b""), str(error) or type(error).__name__
        if len(records) != chunk.uncompressed_size:
            return memoryview(records), f"{len(records)} bytes where {chunk.uncompressed_size} are announced"
        wrong = chunk.uncompressed_crc and zlib.crc32(records) != chunk.uncompressed_crc
        return memoryview(records), "its checksum is wrong" if wrong else ""

    def _take_index(self) -> bool:
        """Take up the summary; False, and mostly said, where it does not tell where every message is."""
        try:
            summary = self._summary()
            if summary is None:
                return False
            statistics = summary.statistics
            if statistics is None:
                self.losses.say(f"{self._name}: it has no statistics; read from beginning to end")
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
                self._file.seek(place.offset)
                self._define(Metadata.read(_stream(self._file.read(place.length)[_HEAD.size :])))
            self._attachments = [(place.offset, place.length) for place in summary.attachment_indexes]
        except _DAMAGE as error:
            reason = str(error) or type(error).__name__
            self.losses.say(f"{self._name}: its index is damaged ({reason}); read from beginning to end")
            return False
        extras = (len(self._attachments), len(self.metadata))
        return (
            indexed == announced
            and sum(announced.values()) == self._announced
            and self._by_channel.keys() >= indexed.keys()
            and extras == (statistics.attachment_count, statistics.metadata_count)
        )

    def _summary(self) -> Summary | None:
        self._file.seek(max(0, self._size - _FOOTER_BYTES))
        footer = self._file.read()
        whole = footer.endswith(MCAP0_MAGIC) and footer[: _HEAD.size] == _HEAD.pack(Opcode.FOOTER, 20)
        if not whole:
            self.losses.say(f"{self._name}: it has no end: cut off, or never closed")
            return None
        start, _, checksum = struct.unpack_from("<QQI", footer, _HEAD.size)
        if not 0 < start <= self._size - _FOOTER_BYTES:
            self.losses.say(f"{self._name}: it has no index; read from beginning to end")
            return None
        self._file.seek(start)
        data = self._file.read()
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
        """Take up a chunk.

        Writers have entered wrong ranges. One is believed that the message indexes behind the chunk confirm; else, and
        in the first chunk, the messages themselves are read.
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
            records, problem = self._records_of(Block(0, 0, offset, length, 0, {}))
            size, heads = len(records), []
            for opcode, content in _records(records):
                if opcode == Opcode.MESSAGE and len(content) >= _MESSAGE.size:
                    heads.append(_MESSAGE.unpack_from(content))
                elif opcode in _PARSERS:
                    self._define(_PARSERS[opcode].read(_stream(content)))
            times_in_it = np.array([log_ns for _, _, log_ns, _ in heads], np.uint64)
            if confirmed and not problem and not np.array_equal(np.sort(found), np.sort(times_in_it)):
                raise McapError("its times are not those of the messages")
            if not problem or len(heads) > len(found):
                counts = Counter(channel for channel, *_ in heads)
                found = times_in_it
            elif not counts:
                self.losses.say(
                    f"{self._name}: of the chunk at byte {offset} nothing can be read ({problem})"
                )
        if len(found):
            self.blocks.append(Block(int(found.min()), int(found.max()), offset, length, size, counts))

    def _message_index(self, at: int) -> dict[int, NDArray[np.uint64]]:
        """Times by channel, as the indexes behind a chunk have them."""
        times = {}
        self._file.seek(at)
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            opcode, length = _HEAD.unpack(head)
            if opcode != Opcode.MESSAGE_INDEX or self._file.tell() + length > self._size:
                break
            entries = MessageIndex.read(_stream(self._file.read(length)))
            times[entries.channel_id] = np.array([log_ns for log_ns, _ in entries.records], np.uint64)
        return times

    def _scan(self) -> None:
        """Find what is there by going through the file from beginning to end, as far as its records go."""
        at = len(MCAP0_MAGIC)
        opcode = 0
        while at + _HEAD.size <= self._size:
            self._file.seek(at)
            opcode, length = _HEAD.unpack(self._file.read(_HEAD.size))
            end = at + _HEAD.size + length
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
                    channel, _, log_ns, _ = _MESSAGE.unpack(self._file.read(_MESSAGE.size))
                    self._add_message(channel, log_ns, at, end)
                elif opcode == Opcode.ATTACHMENT:
                    self._attachments.append((at, end - at))
                elif opcode in _PARSERS:
                    self._define(_PARSERS[opcode].read(_stream(self._file.read(length))))
            except _DAMAGE as error:
                self.losses.say(f"{self._name}: the record at byte {at} is damaged ({error})")
            at = min(end, self._size)
        if opcode not in (Opcode.DATA_END, Opcode.FOOTER) and at < self._size:
            self.losses.say(
                f"{self._name}: it is damaged at byte {at}: the {self._size - at} bytes from there on are lost; "
                f"mcap recover {self._name} -o NEW.mcap may find more in them"
            )
        missing = self._announced - sum(sum(block.counts.values()) for block in self.blocks)
        if missing > 0:
            sentence = f"its statistics count {missing} messages more than it holds"
            self.losses.say(f"{self._name}: {sentence}", "statistics", missing)

    def _add_message(self, channel: int, log_ns: int, at: int, end: int) -> None:
        """Take up a message outside of chunks, into the run that it continues or a new one."""
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
        elif record.id not in self._by_channel:
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
            self._by_channel[record.id] = connection
            if connection not in self.connections:
                self.connections.append(connection)


_PARSERS: dict[int, type[Schema | Channel | Metadata]] = {
    Opcode.SCHEMA: Schema,
    Opcode.CHANNEL: Channel,
    Opcode.METADATA: Metadata,
}


def _stream(content: bytes | memoryview) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(content))


def _confirms(times: NDArray[np.uint64], index: ChunkIndex) -> bool:
    """Whether message indexes bear out a chunk's range; 0 is what writers enter that do not know it."""
    if not len(times) or index.message_start_time == 0:
        return False
    return (index.message_start_time, index.message_end_time) == (int(times.min()), int(times.max()))


def _records(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Operation code and content of each record; what follows the last whole one is left."""
    at = 0
    while at + _HEAD.size <= len(data):
        opcode, length = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if end > len(data) or opcode == 0:  # no record: zeros would be millions of empty ones
            return
        yield opcode, data[at + _HEAD.size : end]
        at = end


def _unpacked(chunk: Chunk) -> bytes:
    """Records of a chunk, never more bytes than it announces; of one that is cut off what there is."""
    size = chunk.uncompressed_size
    if size > MOST_UNPACKED_BYTES:
        raise McapError(f"{size} bytes are announced; more than {MOST_UNPACKED_BYTES} are not unpacked")
    if chunk.compression == "zstd":
        return unzstd(chunk.data, size)
    if chunk.compression == "lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=size))
    if chunk.compression:
        raise McapError(f"compression {chunk.compression!r} is unknown")
    return bytes(chunk.data)


def _largest_overlap_bytes(blocks: Sequence[Block]) -> int:
    """Most bytes that are held at once when blocks are read by time, beyond the largest, which is held in any order."""
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
