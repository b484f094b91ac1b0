# SPDX-License-Identifier: Apache-2.0
"""Reads an mcap file by its index, or without one; also what is left of a damaged one."""

from __future__ import annotations

import heapq
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from canet_ros.bags import mcap_format as mcap
from canet_ros.bags.bag import (
    BagError,
    Connection,
    Losses,
    Message,
    Stream,
    Streams,
    message_bytes,
    type_name,
)
from canet_ros.bags.qos import policies_as_numbers

QOS_KEY, HASH_KEY = "offered_qos_profiles", "topic_type_hash"
# Chunks that overlap in time are held at once; where a file is so out of order that this is not enough, it is read as
# it was written.
_MAX_OVERLAP_BYTES = 256 << 20
_MAX_RUN_BYTES = 1 << 20
_MAX_RECORD_BYTES = 4 << 30
_PIECE_BYTES = 1 << 20
_CHUNKS = {compression: mcap.text(compression) for compression in ("zstd", "lz4")}


@dataclass(frozen=True)
class Block:
    """Messages that lie together: a chunk, or a run of messages outside of one; times in ns.

    Attributes:
        offset, length: of the bytes in the file, in bytes; of a chunk the whole record.
        chunked: whether they are a chunk's.
        size: of the records when unpacked, in bytes.
        cut: whether the file ends in it.
    """

    start_ns: int
    end_ns: int
    offset: int
    length: int
    chunked: bool
    size: int
    cut: bool = False


class McapFile:
    """One mcap file.

    Raises:
        BagError: it cannot be opened, or is no mcap file.
    """

    def __init__(self, path: Path) -> None:
        self.connections: list[Connection] = []
        self.counts: dict[str, int] = {}
        self.losses = Losses()
        self.out_of_order = 0
        self.blocks: list[Block] = []
        self._found = 0
        self.chunks: list[mcap.Chunk] = []
        self.schemas: dict[int, mcap.Schema] = {}
        self.channels: dict[int, mcap.Channel] = {}
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self._attachments: list[tuple[int, int]] = []
        self._announced_extras = 0, 0
        self._counted: Counter[int] = Counter()
        self.by_channel: dict[int, Connection] = {}
        self._name = path.name
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise BagError(f"cannot open {path}: {error.strerror}") from error
        try:
            self._open(path)
        except BaseException:
            self._file.close()
            raise

    @property
    def start_ns(self) -> int | None:
        return min((block.start_ns for block in self.blocks), default=None)

    @property
    def end_ns(self) -> int | None:
        return max((block.end_ns for block in self.blocks), default=None)

    @property
    def in_time_order(self) -> bool:
        return _largest_overlap_bytes(self.blocks) <= _MAX_OVERLAP_BYTES

    def close(self) -> None:
        self._file.close()

    def messages(self, start_ns: int, end_ns: int, streams: Streams = None) -> Iterator[Message]:
        blocks = [b for b in self._blocks_of(streams) if b.start_ns < end_ns and b.end_ns >= start_ns]
        if self.in_time_order:
            found = self._in_order_of_time(blocks, start_ns, end_ns)
        else:
            self.losses.say(f"{self._name}: times are all mixed up; it is read in the order of its writing")
            found = self._in_order_of_writing(blocks, start_ns, end_ns)
        return found if streams is None else (m for m in found if m.connection.stream in streams)

    def newest_first(self, stream: Stream, before_ns: int) -> Iterator[Message]:
        blocks = [block for block in self._blocks_of({stream}) if block.start_ns < before_ns]
        blocks.sort(key=lambda block: block.end_ns)
        found: list[Message] = []
        while blocks or found:
            found.sort(key=lambda message: message.log_ns)
            while found and not (blocks and blocks[-1].end_ns > found[-1].log_ns):
                yield found.pop()
            if blocks:
                found += [
                    m for m in self._messages_in(blocks.pop(), 0, before_ns) if m.connection.stream == stream
                ]

    def _blocks_of(self, streams: Streams) -> Sequence[Block]:
        """Those that may hold messages of these topics; None: of any."""
        if streams is None:
            return self.blocks
        channels = {number for number, other in self.by_channel.items() if other.stream in streams}
        elsewhere = {
            chunk.offset
            for chunk in self.chunks
            if chunk.message_indexes and channels.isdisjoint(channel for channel, _ in chunk.message_indexes)
        }
        return [block for block in self.blocks if block.offset not in elsewhere]

    def attachments(self) -> Iterator[Iterator[bytes]]:
        """The records of attachments, each in pieces, the head with names and times in the first."""
        for offset, length in self._attachments:
            self._file.seek(offset)
            head = self._file.read(mcap.RECORD_HEAD.size)
            if head == mcap.RECORD_HEAD.pack(mcap.ATTACHMENT, length - mcap.RECORD_HEAD.size):
                yield self._pieces(offset, length)
            else:
                self.losses.say(f"{self._name}: the attachment at byte {offset} is lost")

    def _pieces(self, offset: int, length: int) -> Iterator[bytes]:
        for at in range(0, length, _PIECE_BYTES):
            self._file.seek(offset + at)
            yield self._file.read(min(_PIECE_BYTES, length - at))

    def _in_order_of_writing(self, blocks: Sequence[Block], start_ns: int, end_ns: int) -> Iterator[Message]:
        for block in sorted(blocks, key=lambda block: block.offset):
            yield from self._messages_in(block, start_ns, end_ns)

    def _in_order_of_time(self, blocks: Sequence[Block], start_ns: int, end_ns: int) -> Iterator[Message]:
        waiting: list[tuple[int, int, int, Message]] = []
        last = (-1, -1)
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
        for operation, _, content in mcap.records(self._records_of(block)):
            if operation != mcap.MESSAGE or len(content) < mcap.MESSAGE_HEAD.size:
                continue
            channel, sequence, log_ns, publish_ns = mcap.MESSAGE_HEAD.unpack_from(content)
            if not start_ns <= log_ns < end_ns:
                continue
            connection = self.by_channel.get(channel)
            if connection is None:
                self.losses.messages += 1
                self.losses.say(f"{self._name}: messages of a channel whose record is lost")
                continue
            stored = bytes(content[mcap.MESSAGE_HEAD.size :])
            data = message_bytes(stored, connection, self.losses, self._name)
            if data is not None:
                yield Message(connection, log_ns, publish_ns, sequence, data)

    def _records_of(self, block: Block) -> bytes | memoryview:
        self._file.seek(block.offset)
        data = self._file.read(block.length)
        if not block.chunked:
            return data
        try:
            unpacked, expected, problem = _unpacked(memoryview(data)[mcap.RECORD_HEAD.size :])
        except mcap.FormatError as error:
            unpacked, expected, problem = b"", 0, str(error)
        if problem:
            found = sum(operation == mcap.MESSAGE for operation, _, _ in mcap.records(unpacked))
            lost = max(0, self._announced(block) - found)
            self.losses.messages += lost
            known = f", {lost} messages in it are lost" if lost else ""
            self.losses.say(
                f"{self._name}: the chunk at byte {block.offset} is damaged ({problem}); {found} messages "
                f"were read from it{known}"
            )
        elif expected and zlib.crc32(unpacked) != expected:
            self.losses.say(
                f"{self._name}: the chunk at byte {block.offset} fails its checksum; its messages are taken as they are"
            )
        return unpacked

    def _announced(self, block: Block) -> int:
        """How many messages the indexes behind a chunk name; 0 where there are none."""
        count = 0
        self._file.seek(block.offset + block.length)
        while len(head := self._file.read(mcap.RECORD_HEAD.size)) == mcap.RECORD_HEAD.size:
            operation, length = mcap.RECORD_HEAD.unpack(head)
            if operation != mcap.MESSAGE_INDEX or length > _MAX_RECORD_BYTES:
                break
            count += max(0, length - 6) // 16
            self._file.seek(length, 1)
        return count

    def _open(self, path: Path) -> None:
        size = path.stat().st_size
        if size == 0:
            raise BagError(f"{path} is empty: 0 bytes")
        magic = self._file.read(len(mcap.MAGIC))
        if magic != mcap.MAGIC:
            raise BagError(f"{path} is no mcap file: it does not start as one")
        try:
            complete = self._read_summary(size)
        except (mcap.FormatError, struct.error) as error:
            self.losses.say(f"{self._name}: its index is damaged ({error}); read from beginning to end")
            complete = False
        if not complete:
            self.schemas, self.channels, self.chunks, self.blocks = {}, {}, [], []
            self.counts, self.connections, self.by_channel = {}, [], {}
            self.metadata, self._attachments = [], []
            self.scan(size)
            missing = self._counted.total() - self._found
            if missing > 0:
                self.losses.messages += missing
                self.losses.say(f"{self._name}: its statistics count {missing} messages more than it holds")

    def _read_summary(self, size: int) -> bool:
        """Whether the summary tells where every message is."""
        if size < len(mcap.MAGIC) + mcap.FOOTER_BYTES:
            self.losses.say(f"{self._name}: it has no end: cut off, or never closed")
            return False
        self._file.seek(size - mcap.FOOTER_BYTES)
        tail = self._file.read(mcap.FOOTER_BYTES)
        operation, length = mcap.RECORD_HEAD.unpack_from(tail)
        if tail[-len(mcap.MAGIC) :] != mcap.MAGIC or (operation, length) != (mcap.FOOTER, 20):
            self.losses.say(f"{self._name}: it has no end: cut off, or never closed")
            return False
        start, _, checksum = struct.unpack_from("<QQI", tail, mcap.RECORD_HEAD.size)
        if not len(mcap.MAGIC) <= start <= size - mcap.FOOTER_BYTES:
            self.losses.say(f"{self._name}: it has no index; read from beginning to end")
            return False
        self._file.seek(start)
        summary = self._file.read(size - mcap.FOOTER_BYTES - start)
        head = tail[: mcap.RECORD_HEAD.size + 16]
        if checksum and zlib.crc32(summary + head) != checksum:
            raise mcap.FormatError("checksum")
        statistics: mcap.Fields | None = None
        places: list[tuple[int, int]] = []
        for operation, _, content in mcap.records(summary):
            if operation == mcap.SCHEMA:
                self._add_schema(mcap.parse_schema(content))
            elif operation == mcap.CHANNEL:
                self._add_channel(mcap.parse_channel(content))
            elif operation == mcap.CHUNK_INDEX:
                self.chunks.append(mcap.parse_chunk_index(content))
            elif operation == mcap.STATISTICS:
                statistics = mcap.Fields(content)
            elif operation == mcap.METADATA_INDEX:
                fields = mcap.Fields(content)
                places.append((fields.u64(), fields.u64()))
            elif operation == mcap.ATTACHMENT_INDEX:
                fields = mcap.Fields(content)
                self._attachments.append((fields.u64(), fields.u64()))
        if any(chunk.offset + chunk.length > size for chunk in self.chunks):
            raise mcap.FormatError("it names chunks beyond the end of the file")
        if not self._holds_everything(statistics):
            return False
        indexed: Counter[int] = Counter()
        for chunk in self.chunks:
            times = self._times_in(chunk, indexed)
            if len(times):
                self.blocks.append(
                    Block(
                        int(times.min()),
                        int(times.max()),
                        chunk.offset,
                        chunk.length,
                        True,
                        chunk.uncompressed_size,
                    )
                )
        if indexed != self._counted:
            return False
        if any(offset + length > size for offset, length in (*places, *self._attachments)):
            raise mcap.FormatError("it names records beyond the end of the file")
        for offset, length in places:
            self._file.seek(offset)
            self._add_metadata(self._file.read(length)[mcap.RECORD_HEAD.size :])
        if self._announced_extras != (len(self._attachments), len(places)):
            self._find_extras(size)
        return True

    def _times_in(self, chunk: mcap.Chunk, indexed: Counter[int]) -> NDArray[np.uint64]:
        """Times of a chunk's messages, which are added to the channels' counts.

        Writers have entered wrong ranges. One is believed that the message indexes behind the chunk confirm; else the
        messages themselves are read.
        """
        self._file.seek(chunk.offset + chunk.length)
        times: dict[int, NDArray[np.uint64]] = {}
        for operation, _, content in mcap.records(self._file.read(chunk.message_index_length)):
            if operation == mcap.MESSAGE_INDEX:
                fields = mcap.Fields(content)
                channel, entries = fields.u16(), fields.sized()
                times[channel] = np.frombuffer(entries[: len(entries) // 16 * 16], "<u8")[::2]
        found = np.concatenate([np.zeros(0, np.uint64), *times.values()])
        ranges = (chunk.start_ns, chunk.end_ns)
        if not len(found) or ranges[0] == 0 or ranges != (int(found.min()), int(found.max())):
            self._file.seek(chunk.offset + mcap.RECORD_HEAD.size)
            unpacked, _, _ = _unpacked(memoryview(self._file.read(chunk.length - mcap.RECORD_HEAD.size)))
            heads = [
                mcap.MESSAGE_HEAD.unpack_from(content)
                for operation, _, content in mcap.records(unpacked)
                if operation == mcap.MESSAGE and len(content) >= mcap.MESSAGE_HEAD.size
            ]
            if len(heads) >= len(found):
                found = np.array([log_ns for _, _, log_ns, _ in heads], np.uint64)
                indexed.update(channel for channel, *_ in heads)
                return found
        indexed.update({channel: len(entries) for channel, entries in times.items() if len(entries)})
        return found

    def _find_extras(self, size: int) -> None:
        """Look for attachments and metadata that have no index, from record to record."""
        self.metadata, self._attachments = [], []
        at = len(mcap.MAGIC)
        while at + mcap.RECORD_HEAD.size <= size:
            self._file.seek(at)
            operation, length = mcap.RECORD_HEAD.unpack(self._file.read(mcap.RECORD_HEAD.size))
            end = at + mcap.RECORD_HEAD.size + length
            if operation == mcap.DATA_END or end > size:
                return
            if operation == mcap.ATTACHMENT:
                self._attachments.append((at, end - at))
            elif operation == mcap.METADATA:
                self._add_metadata(self._file.read(length))
            at = end

    def _holds_everything(self, statistics: mcap.Fields | None) -> bool:
        self._announced_extras = -1, -1
        self._counted = Counter[int]()
        if statistics is None:
            self.losses.say(f"{self._name}: it has no statistics; read from beginning to end")
            return False
        message_count, _, _, attachment_count, metadata_count, chunk_count = (
            statistics.u64(),
            statistics.u16(),
            *(statistics.u32() for _ in range(4)),
        )
        self._announced_extras = attachment_count, metadata_count
        statistics.take(16)
        counts = mcap.Fields(statistics.sized())
        while counts.left:
            channel, count = counts.u16(), counts.u64()
            if count:
                self._counted[channel] = count
            if channel in self.channels:
                topic = self.channels[channel].topic
                self.counts[topic] = self.counts.get(topic, 0) + count
        if chunk_count == 0:
            return message_count == 0  # a file without chunks is scanned; it is none the worse
        if len(self.chunks) != chunk_count:
            self.losses.say(f"{self._name}: it has no index of its chunks; read from beginning to end")
            return False
        return bool(self.channels) and all(
            channel.schema_id in {0, *self.schemas} for channel in self.channels.values()
        )

    def scan(self, size: int) -> None:
        """Find what is there by going through the file from beginning to end."""
        at = len(mcap.MAGIC)
        run: Block | None = None
        while at + mcap.RECORD_HEAD.size <= size:
            self._file.seek(at)
            operation, length = mcap.RECORD_HEAD.unpack(self._file.read(mcap.RECORD_HEAD.size))
            end = at + mcap.RECORD_HEAD.size + length
            plausible = 0 < operation <= mcap.DATA_END or operation >= 0x80
            plausible &= operation != mcap.MESSAGE or length >= mcap.MESSAGE_HEAD.size
            if not plausible or (end > size and operation != mcap.CHUNK) or length > _MAX_RECORD_BYTES:
                further = self._next_chunk(at + 1, size)
                if further is None:
                    self.losses.say(
                        f"{self._name}: it ends in the middle of a record, {size - at} bytes are lost"
                    )
                    break
                self.losses.say(f"{self._name}: {further - at} bytes from byte {at} on are damaged and lost")
                at = further
                continue
            if operation == mcap.MESSAGE:
                log_ns = mcap.MESSAGE_HEAD.unpack(self._file.read(mcap.MESSAGE_HEAD.size))[2]
                run = self._extended(run, log_ns, at, end)
                self._found += 1
            elif operation == mcap.CHUNK:
                self._add_chunk(at, min(end, size), cut=end > size)
            elif operation == mcap.ATTACHMENT:
                self._attachments.append((at, end - at))
            elif operation in (mcap.SCHEMA, mcap.CHANNEL, mcap.METADATA):
                self._add_definition(operation, self._file.read(length))
            elif operation in (mcap.DATA_END, mcap.FOOTER):
                break
            if operation == mcap.MESSAGE_INDEX and self.chunks:
                self._add_message_index(at, length)
            at = min(end, size)

    def _extended(self, run: Block | None, log_ns: int, at: int, end: int) -> Block:
        """The run of loose messages with one more, or a new one."""
        length = end - at
        if run is not None and run.offset + run.length == at and run.length + length <= _MAX_RUN_BYTES:
            self.blocks.pop()
            first_ns, last_ns = min(run.start_ns, log_ns), max(run.end_ns, log_ns)
            run = Block(first_ns, last_ns, run.offset, run.length + length, False, run.length + length)
        else:
            run = Block(log_ns, log_ns, at, length, False, length)
        self.blocks.append(run)
        return run

    def _add_chunk(self, at: int, end: int, cut: bool) -> None:
        """Take up a chunk, and what is defined in it."""
        self._file.seek(at + mcap.RECORD_HEAD.size)
        content = memoryview(self._file.read(end - at - mcap.RECORD_HEAD.size))
        try:
            unpacked, _, problem = _unpacked(content)
            start_ns, end_ns, size, _ = mcap.CHUNK_HEAD.unpack_from(content)
            fields = mcap.Fields(content[mcap.CHUNK_HEAD.size :])
            compression, compressed = fields.text(), fields.u64()
        except (mcap.FormatError, struct.error):
            self.losses.say(f"{self._name}: it ends in the head of a chunk, {end - at} bytes are lost")
            return
        times = []
        for operation, _, inner in mcap.records(unpacked):
            if operation == mcap.MESSAGE and len(inner) >= mcap.MESSAGE_HEAD.size:
                times.append(mcap.MESSAGE_HEAD.unpack_from(inner)[2])
            elif operation in (mcap.SCHEMA, mcap.CHANNEL):
                self._add_definition(operation, bytes(inner))
        self._found += len(times)
        if times:
            self.blocks.append(Block(min(times), max(times), at, end - at, True, size, cut))
        elif cut or problem:
            self.losses.say(f"{self._name}: of the chunk at byte {at} no message can be read")
        if not cut:
            self.chunks.append(
                mcap.Chunk(start_ns, end_ns, at, end - at, (), 0, compression, compressed, size)
            )

    def _add_message_index(self, at: int, length: int) -> None:
        self._file.seek(at + mcap.RECORD_HEAD.size)
        (channel,) = struct.unpack("<H", self._file.read(2))
        chunk = self.chunks[-1]
        self.chunks[-1] = mcap.Chunk(
            chunk.start_ns,
            chunk.end_ns,
            chunk.offset,
            chunk.length,
            (*chunk.message_indexes, (channel, at)),
            chunk.message_index_length + mcap.RECORD_HEAD.size + length,
            chunk.compression,
            chunk.compressed_size,
            chunk.uncompressed_size,
        )

    def _next_chunk(self, at: int, size: int) -> int | None:
        """Where, behind damaged bytes, the next whole chunk begins; None: nowhere."""
        step = 1 << 20
        lead = mcap.RECORD_HEAD.size + mcap.CHUNK_HEAD.size
        while at < size:
            self._file.seek(at)
            data = self._file.read(step + 64)
            hits = sorted(hit for word in _CHUNKS.values() for hit in _all_of(data, word))
            for hit in hits:
                start = at + hit - lead
                if hit >= lead and data[hit - lead] == mcap.CHUNK:
                    length = mcap.RECORD_HEAD.unpack_from(data, hit - lead)[1]
                    if start + mcap.RECORD_HEAD.size + length <= size:
                        return start
            at += step
        return None

    def _add_definition(self, operation: int, content: bytes) -> None:
        try:
            if operation == mcap.SCHEMA:
                self._add_schema(mcap.parse_schema(content))
            elif operation == mcap.CHANNEL:
                self._add_channel(mcap.parse_channel(content))
            else:
                self._add_metadata(content)
        except mcap.FormatError as error:
            self.losses.say(f"{self._name}: the record of a topic is damaged: {error}")

    def _add_schema(self, schema: mcap.Schema) -> None:
        self.schemas.setdefault(schema.id, schema)

    def _add_channel(self, channel: mcap.Channel) -> None:
        if channel.id in self.channels:
            return
        self.channels[channel.id] = channel
        schema = self.schemas.get(channel.schema_id, mcap.Schema(0, "", "", b""))
        metadata = dict(channel.metadata)
        connection = Connection(
            channel.topic,
            type_name(schema.name) if channel.message_encoding == "cdr" else schema.name,
            channel.message_encoding,
            policies_as_numbers(metadata.pop(QOS_KEY, "")),
            schema.encoding,
            schema.data,
            metadata.pop(HASH_KEY, ""),
            tuple(metadata.items()),
        )
        self.by_channel[channel.id] = connection
        if connection not in self.connections:
            self.connections.append(connection)

    def _add_metadata(self, content: bytes) -> None:
        fields = mcap.Fields(content)
        name = fields.text()
        self.metadata.append((name, dict(fields.texts())))


def _unpacked(content: memoryview) -> tuple[bytes, int, str]:
    """Records of a chunk record's content, their CRC by it, and what is wrong."""
    if len(content) < mcap.CHUNK_HEAD.size:
        raise mcap.FormatError("a chunk without its head")
    _, _, size, checksum = mcap.CHUNK_HEAD.unpack_from(content)
    fields = mcap.Fields(content[mcap.CHUNK_HEAD.size :])
    compression, compressed = fields.text(), fields.u64()
    unpacked, problem = mcap.decompress(fields.take(min(compressed, fields.left)), compression, size)
    return unpacked, checksum, problem


def _all_of(data: bytes, word: bytes) -> Iterator[int]:
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


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
