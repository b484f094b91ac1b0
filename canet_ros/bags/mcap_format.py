# SPDX-License-Identifier: Apache-2.0
"""Records of the mcap file format (https://mcap.dev/spec), to bytes and back. All integers are little endian."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lz4.frame
import zstandard

MAGIC = b"\x89MCAP0\r\n"

(
    HEADER,
    FOOTER,
    SCHEMA,
    CHANNEL,
    MESSAGE,
    CHUNK,
    MESSAGE_INDEX,
    CHUNK_INDEX,
    ATTACHMENT,
    ATTACHMENT_INDEX,
    STATISTICS,
    METADATA,
    METADATA_INDEX,
    SUMMARY_OFFSET,
    DATA_END,
) = range(1, 0x10)

RECORD_HEAD = struct.Struct("<BQ")
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
CHUNK_HEAD = struct.Struct("<QQQI")  # first and last log time, size and CRC of the records in it
FOOTER_BYTES = RECORD_HEAD.size + 20 + len(MAGIC)

COMPRESSIONS = ("", "lz4", "zstd")
_PIECE_BYTES = 4096
# A chunk, or a message. Damaged or malicious bytes announce, or hold, what fills any memory.
MOST_UNPACKED_BYTES = 2 << 30


class FormatError(ValueError):
    """Bytes that are not what the format says."""


@dataclass(frozen=True)
class Schema:
    id: int
    name: str
    encoding: str
    data: bytes


@dataclass(frozen=True)
class Channel:
    id: int
    schema_id: int
    topic: str
    message_encoding: str
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Chunk:
    """Where a chunk is and what it holds; times in ns.

    Attributes:
        offset, length: of the whole record in the file, in bytes.
        message_indexes: offset of the message index of each channel in it.
    """

    start_ns: int
    end_ns: int
    offset: int
    length: int
    message_indexes: tuple[tuple[int, int], ...]
    message_index_length: int
    compression: str
    compressed_size: int
    uncompressed_size: int


class Fields:
    """Reads the fields of a record one after the other.

    Raises:
        FormatError: the record ends before the field does, or a string is not UTF-8.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> memoryview:
        if count > self.left:
            raise FormatError(f"a record ends {count - self.left} bytes early")
        self._at += count
        return self._data[self._at - count : self._at]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def sized(self) -> memoryview:
        return self.take(self.u32())

    def text(self) -> str:
        try:
            return str(self.sized(), "utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"a string is not UTF-8: {error}") from error

    def texts(self) -> tuple[tuple[str, str], ...]:
        """A map of strings, in its order."""
        inner = Fields(self.sized())
        pairs = []
        while inner.left:
            pairs.append((inner.text(), inner.text()))
        return tuple(pairs)


def parse_schema(data: bytes | memoryview) -> Schema:
    fields = Fields(data)
    return Schema(fields.u16(), fields.text(), fields.text(), bytes(fields.sized()))


def parse_channel(data: bytes | memoryview) -> Channel:
    fields = Fields(data)
    return Channel(fields.u16(), fields.u16(), fields.text(), fields.text(), fields.texts())


def parse_chunk_index(data: bytes | memoryview) -> Chunk:
    fields = Fields(data)
    start_ns, end_ns, offset, length = (fields.u64() for _ in range(4))
    inner = Fields(fields.sized())
    indexes = []
    while inner.left:
        indexes.append((inner.u16(), inner.u64()))
    return Chunk(
        start_ns,
        end_ns,
        offset,
        length,
        tuple(indexes),
        fields.u64(),
        fields.text(),
        fields.u64(),
        fields.u64(),
    )


def records(data: bytes | memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Operation code, offset and content of each record; what follows the last whole one is left."""
    view = memoryview(data)
    at = 0
    while at + RECORD_HEAD.size <= len(view):
        operation, length = RECORD_HEAD.unpack_from(view, at)
        end = at + RECORD_HEAD.size + length
        if end > len(view) or operation == 0:  # no record: zeros would be millions of empty ones
            return
        yield operation, at, view[at + RECORD_HEAD.size : end]
        at = end


def record(operation: int, content: bytes | bytearray) -> bytes:
    return RECORD_HEAD.pack(operation, len(content)) + content


def text(value: str) -> bytes:
    return sized(value.encode())


def sized(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value


def texts(pairs: Mapping[str, str] | tuple[tuple[str, str], ...]) -> bytes:
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return sized(b"".join(text(key) + text(value) for key, value in items))


def schema_record(schema: Schema) -> bytes:
    content = struct.pack("<H", schema.id) + text(schema.name) + text(schema.encoding) + sized(schema.data)
    return record(SCHEMA, content)


def channel_record(channel: Channel) -> bytes:
    content = struct.pack("<HH", channel.id, channel.schema_id) + text(channel.topic)
    return record(CHANNEL, content + text(channel.message_encoding) + texts(channel.metadata))


def chunk_index_record(chunk: Chunk) -> bytes:
    indexes = b"".join(struct.pack("<HQ", *pair) for pair in chunk.message_indexes)
    content = struct.pack("<QQQQ", chunk.start_ns, chunk.end_ns, chunk.offset, chunk.length) + sized(indexes)
    content += struct.pack("<Q", chunk.message_index_length) + text(chunk.compression)
    return record(CHUNK_INDEX, content + struct.pack("<QQ", chunk.compressed_size, chunk.uncompressed_size))


def decompress(data: bytes | memoryview, compression: str, size: int | None = None) -> tuple[bytes, str]:
    """What was compressed, and what is wrong with it; then as much as could be unpacked. Empty: nothing is wrong.

    Args:
        size: what must come out, in bytes; None: the frame says it, if anything does.
    """
    if size is None and compression == "zstd":
        size = _frame_bytes(data)
    limit = MOST_UNPACKED_BYTES if size is None else size
    if limit > MOST_UNPACKED_BYTES:
        return b"", f"{limit} bytes are announced; more than {MOST_UNPACKED_BYTES} are not unpacked"
    if compression == "":
        unpacked, problem = bytes(data), ""
    elif compression == "zstd":
        unpacked, problem = _unpack(
            data, _unzstd, lambda: zstandard.ZstdDecompressor().decompressobj(), limit
        )
    elif compression == "lz4":
        frame = lz4.frame.LZ4FrameDecompressor
        unpacked, problem = _unpack(data, frame().decompress, frame, limit)
    else:
        return b"", f"compression {compression!r} is unknown"
    if not problem and size is not None and len(unpacked) != size:
        problem = f"{len(unpacked)} bytes where {size} were announced"
    return unpacked[:size], problem


def _frame_bytes(data: bytes | memoryview) -> int | None:
    try:
        announced = zstandard.frame_content_size(data)
    except zstandard.ZstdError:
        return None
    return announced if announced >= 0 else None


def _unzstd(data: bytes | memoryview, max_length: int) -> bytes:
    announced = _frame_bytes(data)
    if announced is not None and announced <= max_length:
        return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(data))
    return bytes(zstandard.ZstdDecompressor().stream_reader(data).read(max_length))


def _unpack(
    data: bytes | memoryview, whole: Callable[..., bytes], decompressor: Callable[[], Any], limit: int
) -> tuple[bytes, str]:
    """All at once; where that fails piece by piece, as far as it goes. It ends behind ``limit`` bytes."""
    try:
        return whole(data, max_length=limit), ""
    except (zstandard.ZstdError, RuntimeError, EOFError) as error:
        problem = str(error)
    fresh = decompressor()
    pieces: list[bytes] = []
    size = 0
    for at in range(0, len(data), _PIECE_BYTES):
        try:
            pieces.append(fresh.decompress(bytes(data[at : at + _PIECE_BYTES])))
        except (zstandard.ZstdError, RuntimeError, EOFError):
            break
        size += len(pieces[-1])
        if size >= limit:
            break
    return b"".join(pieces), problem
