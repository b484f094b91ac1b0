# SPDX-License-Identifier: Apache-2.0
"""Writes an mcap file of rosbag2 with the ``mcap`` package. Its bytes depend on the messages only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mcap.records import Attachment
from mcap.writer import CompressionType, Writer

import canet_ros
from canet_ros.bags.bag import Connection, Message
from canet_ros.bags.mcap_reader import HASH_KEY, QOS_KEY
from canet_ros.bags.metadata import WrittenFile, as_yaml, bag_information

CHUNK_BYTES = 1 << 20


class McapWriter:
    """A file being written. Complete after ``close``; until then its finished chunks can be read.

    Attributes:
        written: what it holds so far.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.written = WrittenFile(path.name)
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._channels: dict[Connection, int] = {}
        self._file = path.open("wb")
        # lz4: images dominate, and stronger compression would take CPU time from inference.
        self._writer = Writer(self._file, CHUNK_BYTES, CompressionType.LZ4)
        self._writer.start("ros2", f"canet_ros {canet_ros.__version__}")
        self._file.flush()

    def add(self, connection: Connection) -> None:
        """Enter a topic, also one without messages."""
        if connection in self._channels:
            return
        key = (connection.msgtype, connection.definition_encoding, connection.definition)
        if key not in self._schemas:
            self._schemas[key] = self._writer.register_schema(*key)
        metadata = {QOS_KEY: connection.qos, HASH_KEY: connection.type_hash, **dict(connection.metadata)}
        self._channels[connection] = self._writer.register_channel(
            connection.topic, connection.encoding, self._schemas[key], metadata
        )
        self.written.counts[connection] = 0

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
        written, log_ns = self.written, message.log_ns
        written.counts[message.connection] += 1
        written.start_ns = log_ns if written.start_ns is None else min(written.start_ns, log_ns)
        written.end_ns = log_ns if written.end_ns is None else max(written.end_ns, log_ns)

    def flush(self) -> None:
        """Write everything to the disk."""
        self._writer.flush()
        os.fsync(self._file.fileno())

    def close(
        self,
        about_it: Mapping[str, Any],
        metadata: Iterable[tuple[str, dict[str, str]]] = (),
        attachments: Iterable[Attachment] = (),
    ) -> None:
        """Write the remaining messages, attachments, metadata records and the index.

        Args:
            about_it: see ``metadata.about``, for the record ``rosbag2``.
            metadata: name and entries of further records.
        """
        for a in attachments:
            self._writer.add_attachment(a.create_time, a.log_time, a.name, a.media_type, a.data)
        information = as_yaml(bag_information([self.written], about_it)).strip()
        for name, entries in (("rosbag2", {"serialized_metadata": information}), *metadata):
            self._writer.add_metadata(name, entries)
        self._writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close the file without a footer; its finished chunks can be read."""
        with contextlib.suppress(OSError):  # a full disk: pending data does not fit either
            self._file.close()
