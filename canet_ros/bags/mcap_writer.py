# SPDX-License-Identifier: Apache-2.0
"""Writes an mcap file of chunks with an index; one that was cut off can be gone on with.

What is written depends on the messages alone, not on when or in how many goes it was written.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import zstandard

from canet_ros.bags import mcap_format as mcap
from canet_ros.bags.bag import Connection, Message
from canet_ros.bags.mcap_reader import HASH_KEY, QOS_KEY, McapFile

CHUNK_BYTES = 1 << 20
_MAX_ID = 2**16 - 1


class McapWriter:
    """A file that is being written. It is complete when ``close`` has returned; before, its whole chunks can be read.

    Args:
        path: of the file; made anew, or gone on with.
        library: who writes, for the file's header.
        resume_at: size in bytes to which a file that is there is good, as ``size`` gave it; None: start anew.
        compression: of the chunks: ``zstd``, or empty for none.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(
        self, path: Path, library: str, resume_at: int | None = None, compression: str = "zstd"
    ) -> None:
        self.counts: dict[Connection, int] = {}
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self._compression = compression
        # Level 1: pictures are compressed already, and what takes time here is taken from the engine.
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._channels: dict[Connection, int] = {}
        self._records: list[bytes] = []
        self._records_bytes = 0
        self._indexes: dict[int, list[tuple[int, int]]] = {}
        self._chunk_start_ns, self._chunk_end_ns = 2**64 - 1, 0
        self._chunks: list[mcap.Chunk] = []
        self._attachments: list[bytes] = []
        if resume_at is None:
            self._file = path.open("wb", buffering=0)
            self._write(mcap.MAGIC + mcap.record(mcap.HEADER, mcap.text("ros2") + mcap.text(library)))
        else:
            self._file = path.open("r+b", buffering=0)
            self._file.truncate(resume_at)
            self._take_up(path)
            self._file.seek(0, 2)

    @property
    def size(self) -> int:
        """Bytes in the file: the whole chunks."""
        return self._file.tell()

    @property
    def message_count(self) -> int:
        return sum(self.counts.values())

    def add(self, connection: Connection) -> None:
        """Enter a topic, also one without messages."""
        if connection in self._channels:
            return
        key = (connection.msgtype, connection.definition_encoding, connection.definition)
        if key not in self._schemas:
            self._schemas[key] = len(self._schemas) + 1
            self._append(mcap.schema_record(mcap.Schema(self._schemas[key], *key)))
        if len(self._channels) == _MAX_ID:
            raise ValueError(f"an mcap file holds {_MAX_ID} topics at most")
        self._channels[connection] = len(self._channels) + 1
        self._append(mcap.channel_record(self._channel(connection)))
        self.counts[connection] = 0

    def write(self, message: Message) -> None:
        """Append a message to the chunk that is being filled; ``flush`` writes it."""
        self.add(message.connection)
        channel = self._channels[message.connection]
        self._indexes.setdefault(channel, []).append((message.log_ns, self._records_bytes))
        head = mcap.MESSAGE_HEAD.pack(channel, message.sequence, message.log_ns, message.publish_ns)
        self._append(mcap.RECORD_HEAD.pack(mcap.MESSAGE, len(head) + len(message.data)) + head, message.data)
        self._chunk_start_ns = min(self._chunk_start_ns, message.log_ns)
        self._chunk_end_ns = max(self._chunk_end_ns, message.log_ns)
        self.counts[message.connection] += 1

    def chunk_is_full(self) -> bool:
        """Whether the chunk that is being filled is large enough to be written."""
        return self._records_bytes >= CHUNK_BYTES

    def flush(self) -> None:
        """Write the chunk that is being filled, whatever its size."""
        if not self._records:
            return
        if not self._indexes:
            self._chunk_start_ns = 0
        records = b"".join(self._records)
        packed = self._compressor.compress(records) if self._compression == "zstd" else records
        head = mcap.CHUNK_HEAD.pack(
            self._chunk_start_ns, self._chunk_end_ns, len(records), zlib.crc32(records)
        )
        head += mcap.text(self._compression) + struct.pack("<Q", len(packed))
        offset = self._file.tell()
        chunk = mcap.RECORD_HEAD.pack(mcap.CHUNK, len(head) + len(packed)) + head
        at = offset + len(chunk) + len(packed)
        length = at - offset
        parts, places = [chunk, packed], []
        for channel, entries in self._indexes.items():
            places.append((channel, at))
            body = struct.pack("<H", channel) + mcap.sized(b"".join(struct.pack("<QQ", *e) for e in entries))
            parts.append(mcap.record(mcap.MESSAGE_INDEX, body))
            at += len(parts[-1])
        # One write, so that a process that is killed leaves a whole chunk or none in most cases.
        self._write(b"".join(parts))
        self._chunks.append(
            mcap.Chunk(
                self._chunk_start_ns,
                self._chunk_end_ns,
                offset,
                length,
                tuple(places),
                at - offset - length,
                self._compression,
                len(packed),
                len(records),
            )
        )
        if self._indexes:
            self._widen(self._chunk_start_ns, self._chunk_end_ns)
        self._records, self._records_bytes, self._indexes = [], 0, {}
        self._chunk_start_ns, self._chunk_end_ns = 2**64 - 1, 0

    def attach(self, pieces: Iterator[bytes]) -> None:
        """Write the record of an attachment that came with the source; its head is in the first piece."""
        offset = self._file.tell()
        for piece in pieces:
            if self._file.tell() == offset:
                fields = mcap.Fields(memoryview(piece)[mcap.RECORD_HEAD.size :])
                times, names = bytes(fields.take(16)), mcap.text(fields.text()) + mcap.text(fields.text())
                size = bytes(fields.take(8))
            self._write(piece)
        place = struct.pack("<QQ", offset, self._file.tell() - offset)
        self._attachments.append(mcap.record(mcap.ATTACHMENT_INDEX, place + times + size + names))

    def close(self, metadata: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        """Write what is left, metadata records by their names, and the index."""
        self.flush()
        places = []
        for name, entries in metadata:
            body = mcap.record(mcap.METADATA, mcap.text(name) + mcap.texts(entries))
            places.append((self._file.tell(), len(body), name))
            self._write(body)
        self._write(mcap.record(mcap.DATA_END, bytes(4)))
        start = at = self._file.tell()
        groups = {
            mcap.SCHEMA: [mcap.schema_record(mcap.Schema(i, *key)) for key, i in self._schemas.items()],
            mcap.CHANNEL: [mcap.channel_record(self._channel(connection)) for connection in self._channels],
            mcap.STATISTICS: [self._statistics(len(places))],
            mcap.CHUNK_INDEX: [mcap.chunk_index_record(chunk) for chunk in self._chunks],
            mcap.ATTACHMENT_INDEX: self._attachments,
            mcap.METADATA_INDEX: [
                mcap.record(mcap.METADATA_INDEX, struct.pack("<QQ", offset, length) + mcap.text(name))
                for offset, length, name in places
            ],
        }
        summary, offsets = b"", b""
        for operation, entries_of_group in groups.items():
            group = b"".join(entries_of_group)
            if group:
                offsets += mcap.record(mcap.SUMMARY_OFFSET, struct.pack("<BQQ", operation, at, len(group)))
            summary += group
            at += len(group)
        footer = mcap.RECORD_HEAD.pack(mcap.FOOTER, 20) + struct.pack("<QQ", start, at)
        checksum = struct.pack("<I", zlib.crc32(summary + offsets + footer))
        self._write(summary + offsets + footer + checksum + mcap.MAGIC)
        self.sync()
        self._file.close()

    def sync(self) -> None:
        """Have the system write to the disk what the file holds."""
        os.fsync(self._file.fileno())

    def abandon(self) -> None:
        """Close the file as it is: without an end, but good to the last whole chunk."""
        self._file.close()

    def _statistics(self, metadata_count: int) -> bytes:
        counts = b"".join(struct.pack("<HQ", self._channels[c], count) for c, count in self.counts.items())
        content = struct.pack(
            "<QHIIIIQQ",
            self.message_count,
            len(self._schemas),
            len(self._channels),
            len(self._attachments),
            metadata_count,
            len(self._chunks),
            self.start_ns or 0,
            self.end_ns or 0,
        )
        return mcap.record(mcap.STATISTICS, content + mcap.sized(counts))

    def _channel(self, connection: Connection) -> mcap.Channel:
        metadata = (
            (QOS_KEY, connection.qos),
            (HASH_KEY, connection.type_hash),
            *connection.metadata,
        )
        key = (connection.msgtype, connection.definition_encoding, connection.definition)
        return mcap.Channel(
            self._channels[connection], self._schemas[key], connection.topic, connection.encoding, metadata
        )

    def _append(self, *parts: bytes) -> None:
        self._records += parts
        self._records_bytes += sum(map(len, parts))

    def _widen(self, start_ns: int, end_ns: int) -> None:
        self.start_ns = start_ns if self.start_ns is None else min(self.start_ns, start_ns)
        self.end_ns = end_ns if self.end_ns is None else max(self.end_ns, end_ns)

    def _take_up(self, path: Path) -> None:
        """Learn from the file itself what was written."""
        written = McapFile(path)
        try:
            self._chunks = list(written.chunks)
            for schema in written.schemas.values():
                self._schemas[(schema.name, schema.encoding, schema.data)] = schema.id
            for number, connection in written.by_channel.items():
                self._channels[connection] = number
                self.counts[connection] = 0
            for message in written.messages(0, 2**64):
                self.counts[message.connection] += 1
            for chunk in self._chunks:
                if chunk.message_indexes:
                    self._widen(chunk.start_ns, chunk.end_ns)
        finally:
            written.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
