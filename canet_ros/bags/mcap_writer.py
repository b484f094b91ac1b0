# SPDX-License-Identifier: Apache-2.0
"""Writes an mcap file of rosbag2 with the ``mcap`` package. Its bytes depend on the messages only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mcap.records import Attachment
from mcap.writer import CompressionType, Writer

from canet_ros.bags.bag import Connection, Message
from canet_ros.bags.mcap_reader import HASH_KEY, QOS_KEY

CHUNK_BYTES = 1 << 20
_MAX_ID = 2**16 - 1


class McapWriter:
    """A file being written. Complete after ``close``; until then its finished chunks can be read.

    Attributes:
        counts: messages of each topic.
        start_ns, end_ns: first and last time; None without messages.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, library: str) -> None:
        self.counts: dict[Connection, int] = {}
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._channels: dict[Connection, int] = {}
        self._file = path.open("wb")
        # lz4: images dominate, and stronger compression would take CPU time from inference.
        self._writer = Writer(self._file, CHUNK_BYTES, CompressionType.LZ4)
        self._writer.start("ros2", library)
        self._file.flush()

    @property
    def size(self) -> int:
        """Size of the finished chunks, in bytes."""
        return self._file.tell()

    def add(self, connection: Connection) -> None:
        """Enter a topic, also one without messages."""
        if connection in self._channels:
            return
        if len(self._channels) == _MAX_ID:
            raise ValueError(f"an mcap file holds {_MAX_ID} topics at most")
        key = (connection.msgtype, connection.definition_encoding, connection.definition)
        if key not in self._schemas:
            self._schemas[key] = self._writer.register_schema(*key)
        metadata = {QOS_KEY: connection.qos, HASH_KEY: connection.type_hash, **dict(connection.metadata)}
        self._channels[connection] = self._writer.register_channel(
            connection.topic, connection.encoding, self._schemas[key], metadata
        )
        self.counts[connection] = 0

    def write(self, message: Message) -> None:
        """Append a message to the chunk that is being filled; ``flush`` writes it before it is full."""
        self.add(message.connection)
        self._writer.add_message(
            self._channels[message.connection],
            message.log_ns,
            message.data,
            message.publish_ns,
            message.sequence,
        )
        self.counts[message.connection] += 1
        times = (
            (message.log_ns,) if self.start_ns is None else (message.log_ns, self.start_ns, self.end_ns or 0)
        )
        self.start_ns, self.end_ns = min(times), max(times)

    def flush(self) -> None:
        """Write everything to the disk."""
        self._writer.flush()
        os.fsync(self._file.fileno())

    def close(
        self, metadata: Sequence[tuple[str, Mapping[str, str]]], attachments: Iterable[Attachment] = ()
    ) -> None:
        """Write the remaining messages, attachments, metadata records (name and entries) and the index."""
        for a in attachments:
            self._writer.add_attachment(a.create_time, a.log_time, a.name, a.media_type, a.data)
        for name, entries in metadata:
            self._writer.add_metadata(name, dict(entries))
        self._writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close the file without a footer; its finished chunks can be read."""
        with contextlib.suppress(OSError):  # a full disk: pending data does not fit either
            self._file.close()
