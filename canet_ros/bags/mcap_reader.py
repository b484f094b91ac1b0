# SPDX-License-Identifier: Apache-2.0
"""Reads an mcap file by the heads of its records, up to the first damage.

The ``mcap`` package's readers trust the index at the end, which some files lack and others have wrong. Here only the
message indexes behind the chunks are used, where they agree with the chunks; other chunks are read.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import lz4.frame
import numpy as np
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Chunk, Metadata, Schema, Statistics
from mcap.writer import MCAP0_MAGIC
from numpy.typing import NDArray

from canet_ros.bags.bag import (
    MAX_UNPACKED_BYTES,
    BagError,
    Block,
    Connection,
    Losses,
    Message,
    StorageFile,
    message_bytes,
    type_name,
    unzstd,
)
from canet_ros.bags.qos import policies_as_numbers

QOS_KEY, HASH_KEY = "offered_qos_profiles", "topic_type_hash"
_MAX_RUN_BYTES = 1 << 20
_HEAD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK = struct.Struct("<QQQ")  # first and last time, size
# Raised by the package's parsers and by the decompressors for damaged data.
_DAMAGE = (McapError, ValueError, struct.error, OverflowError, MemoryError, RuntimeError, zstandard.ZstdError)
_PARSERS: dict[int, type[Schema | Channel | Metadata | Statistics]] = {
    Opcode.SCHEMA: Schema,
    Opcode.CHANNEL: Channel,
    Opcode.METADATA: Metadata,
    Opcode.STATISTICS: Statistics,
}
_WRONG_TIMES = "the times in the index differ from those of the messages"
# Times by channel, from the message indexes behind a chunk.
_Times = dict[int, NDArray[np.uint64]]


class McapFile(StorageFile):
    """One mcap file, whose blocks are its chunks, and runs of messages outside of chunks.

    Attributes:
        metadata: name and entries of its metadata records.

    Raises:
        BagError: it is not an mcap file.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, losses: Losses) -> None:
        super().__init__(path, losses)
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self._schemas: dict[int, Schema] = {}
        self._channel_counts: Counter[int] = Counter()
        self._attachments: list[tuple[int, int]] = []
        self._announced: int | None = None
        self._file = path.open("rb")
        try:
            self._size = path.stat().st_size
            if self._file.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
                raise BagError(f"{path} is not an mcap file: it does not start with mcap's magic bytes")
            self._index(self._walk())
        except BaseException:
            self._file.close()
            raise
        for channel, connection in self.by_number.items():
            self.counts[connection] += self._channel_counts[channel]
        if self._announced is None:
            self._lose("no statistics: cannot check whether it is complete")
        elif (missing := self._announced - self._channel_counts.total()) > 0:
            self._lose(f"its statistics count {missing} messages more than it holds", "statistics", missing)

    def close(self) -> None:
        self._file.close()

    def read(self, block: Block) -> Iterator[Message]:
        """The messages of a block by log time; damaged ones are added to the losses."""
        records, problem = self._records_of(block)
        messages: list[Message] = []
        lost: Counter[str] = Counter()
        found = 0
        for opcode, content in _records_in(records):
            if opcode != Opcode.MESSAGE or len(content) < _MESSAGE.size:
                continue
            found += 1
            channel, sequence, log_ns, publish_ns = _MESSAGE.unpack_from(content)
            if (connection := self.by_number.get(channel)) is None:
                lost["messages of a channel whose record is lost"] += 1
                continue
            try:
                data = message_bytes(bytes(content[_MESSAGE.size :]), connection)
            except (zstandard.ZstdError, MemoryError):
                lost["messages whose compression is damaged"] += 1
                continue
            messages.append(Message(connection, log_ns, publish_ns, sequence, data))
        by_time = sorted(messages, key=lambda message: message.log_ns)
        self.jumps_back |= by_time != messages
        if by_time and not block.start_ns <= by_time[0].log_ns <= by_time[-1].log_ns <= block.end_ns:
            self._lose(_WRONG_TIMES)
        for sentence, count in lost.items():
            self._lose(sentence, (block.offset, sentence), count)
        missing = block.count - found
        if problem or missing > 0:
            self._lose(
                f"the chunk at byte {block.offset} is damaged ({problem or 'too short'}); "
                f"{found} messages were read from it; mcap recover may recover more",
                block.offset,
                missing,
            )
        return iter(by_time)

    def attachments(self) -> Iterator[Attachment]:
        for offset, length in self._attachments:
            try:
                yield Attachment.read(_stream_of(self._read(offset, length)[_HEAD.size :]))
            except _DAMAGE as error:
                self._lose(f"the attachment at byte {offset} is lost ({error})")

    def _read(self, at: int, length: int) -> bytes:
        self._file.seek(at)
        return self._file.read(length)

    def _records_of(self, block: Block) -> tuple[memoryview, str]:
        """Decompressed bytes of the block, as far as possible, and a description of any damage."""
        if self._read(block.offset, 1) != bytes([Opcode.CHUNK]):
            return memoryview(self._read(block.offset, block.length)), ""
        self._file.seek(block.offset + _HEAD.size)
        try:
            chunk = Chunk.read(ReadDataStream(self._file))
            if len(chunk.data) > block.length:
                raise McapError("it is larger than its record")
            records = _unpacked(chunk)
        except _DAMAGE as error:
            return memoryview(b""), str(error) or type(error).__name__
        if len(records) != chunk.uncompressed_size:
            return memoryview(records), f"{len(records)} bytes instead of {chunk.uncompressed_size}"
        wrong = chunk.uncompressed_crc and zlib.crc32(records) != chunk.uncompressed_crc
        return memoryview(records), "its checksum is wrong" if wrong else ""

    def _walk(self) -> list[tuple[Block, _Times]]:
        """Read everything but the messages, from record to record up to the first damage."""
        found: list[tuple[Block, _Times]] = []
        at, opcode = len(MCAP0_MAGIC), 0
        while opcode != Opcode.FOOTER and at + _HEAD.size <= self._size:
            head = self._read(at, _HEAD.size + _CHUNK.size)
            opcode, length = _HEAD.unpack_from(head)
            end = at + _HEAD.size + length
            known = 0 < opcode <= Opcode.DATA_END or opcode >= 0x80
            if not known or (end > self._size and opcode != Opcode.CHUNK):
                break
            end = min(end, self._size)
            try:
                if opcode == Opcode.CHUNK:
                    found.append((Block(at, end - at, *_CHUNK.unpack_from(head, _HEAD.size)), {}))
                elif opcode == Opcode.MESSAGE_INDEX and found:
                    content = self._read(at + _HEAD.size, length)
                    # channel and length, then pairs of time and offset
                    channel = content[0] | content[1] << 8
                    found[-1][1][channel] = np.frombuffer(content, "<u8", -1, 6)[::2]
                elif opcode == Opcode.MESSAGE:
                    run = found[-1][0] if found else Block(0, _MAX_RUN_BYTES)
                    if run.size == 0 and run.offset + run.length == at and run.length < _MAX_RUN_BYTES:
                        run.length += end - at
                    else:
                        found.append((Block(at, end - at), {}))
                elif opcode == Opcode.ATTACHMENT:
                    self._attachments.append((at, end - at))
                elif opcode in _PARSERS:
                    self._define(opcode, self._read(at + _HEAD.size, length))
            except _DAMAGE as error:
                self._lose(f"the record at byte {at} is damaged ({error})")
            at = end
        if opcode != Opcode.FOOTER or self._read(self._size - len(MCAP0_MAGIC), 8) != MCAP0_MAGIC:
            self._lose("no footer: truncated, or never closed")
        if opcode != Opcode.FOOTER and at < self._size:
            self._lose(
                f"damaged at byte {at}: the remaining {self._size - at} bytes are lost; "
                f"mcap recover {self._name} -o NEW.mcap may recover more"
            )
        return found

    def _index(self, found: list[tuple[Block, _Times]]) -> None:
        """Complete chunks and runs of messages to blocks.

        Some writers store wrong time ranges or indexes. A chunk's messages are read unless its range and its message
        indexes agree. The first chunk is always read: if its times differ from a range that agrees, all are read.
        """
        trusted = True
        for number, (block, indexed) in enumerate(found):
            times = np.concatenate([np.zeros(0, np.uint64), *indexed.values()])
            agrees = len(times) > 0 and (block.start_ns, block.end_ns) == (times.min(), times.max())
            agrees = agrees and block.start_ns > 0 and self.by_number.keys() >= indexed.keys()
            counts = Counter({channel: len(entries) for channel, entries in indexed.items()})
            if not (agrees and trusted and number):
                records, problem = self._records_of(block)
                block.size, heads = len(records), []
                for opcode, content in _records_in(records):
                    if opcode == Opcode.MESSAGE and len(content) >= _MESSAGE.size:
                        heads.append(_MESSAGE.unpack_from(content))
                    elif opcode in _PARSERS:
                        with contextlib.suppress(*_DAMAGE):
                            self._define(opcode, content)
                read = np.array([log_ns for _, _, log_ns, _ in heads], np.uint64)
                if agrees and not problem and not np.array_equal(np.sort(times), np.sort(read)):
                    self._lose(_WRONG_TIMES)
                    trusted = False
                if not problem or len(heads) > len(times):
                    counts, times = Counter(channel for channel, *_ in heads), read
                elif len(times) == 0:
                    self._lose(f"the chunk at byte {block.offset} cannot be read ({problem})")
            if len(times):
                block.start_ns, block.end_ns, block.count = int(times.min()), int(times.max()), len(times)
                block.numbers = set(counts)
                self.jumps_back |= bool(self.blocks) and block.start_ns < self.blocks[-1].end_ns
                self.blocks.append(block)
                self._channel_counts += counts

    def _define(self, opcode: int, content: bytes | memoryview) -> None:
        record = _PARSERS[opcode].read(_stream_of(content))
        if isinstance(record, Metadata):
            self.metadata.append((record.name, record.metadata))
        elif isinstance(record, Statistics):
            self._announced = record.message_count
        elif isinstance(record, Schema):
            self._schemas.setdefault(record.id, record)
        elif record.id not in self.by_number:
            schema = self._schemas.get(record.schema_id, Schema(0, b"", "", ""))
            metadata = dict(record.metadata)
            self.by_number[record.id] = Connection(
                record.topic,
                type_name(schema.name) if record.message_encoding == "cdr" else schema.name,
                record.message_encoding,
                policies_as_numbers(metadata.pop(QOS_KEY, "")),
                schema.encoding,
                schema.data,
                metadata.pop(HASH_KEY, ""),
                tuple(metadata.items()),
            )


def _stream_of(content: bytes | memoryview) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(content))


def _records_in(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield opcode and content of each complete record."""
    at = 0
    while at + _HEAD.size <= len(data):
        opcode, length = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        # Opcode 0 is not a record; a block of zeros would parse as millions of empty ones.
        if end > len(data) or opcode == 0:
            return
        yield opcode, data[at + _HEAD.size : end]
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
