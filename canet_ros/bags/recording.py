# SPDX-License-Identifier: Apache-2.0
"""Writes a bag while it comes: in chunks that are readable at once, and in splits that explain themselves."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import canet_ros
from canet_ros.bags.bag import BagError, Connection, Message
from canet_ros.bags.bag_folder import WrittenFile, bag_information, metadata_records, write_metadata
from canet_ros.bags.mcap_writer import McapWriter
from canet_ros.bags.output import writing_to
from canet_ros.bags.qos import is_latched

_FLUSH_S = 1.0  # what a power cut costs at most, beside what the system has not yet brought to the disk
_FULL = "what was recorded before can be read"
_LATCHED_KEPT = 100  # of each topic: as many publishers may have latched one each


class BagRecorder:
    """A bag of mcap files in a folder that is made.

    What latched topics last said is repeated at the beginning of every split. metadata.yaml is written anew with each
    finished file.

    Args:
        split_bytes, split_ns: size and length from which a new file is begun; 0: never.

    Raises:
        BagError: the folder exists, or cannot be written.
    """

    def __init__(self, folder: Path, split_bytes: int = 0, split_ns: int = 0, distribution: str = "") -> None:
        if folder.exists():
            raise BagError(f"{folder} exists: give another name")
        self._folder = folder
        self._split_bytes, self._split_ns = split_bytes, split_ns
        self._distribution = distribution
        self._finished: list[WrittenFile] = []
        self._latched: dict[Connection, deque[Message]] = {}
        self._connections: list[Connection] = []
        self._first_ns: int | None = None
        self._flushed_s = time.monotonic()
        self._custom = {"canet_ros.version": canet_ros.__version__}
        with writing_to(folder, _FULL):
            folder.mkdir(parents=True)
            self._writer = self._new_file()

    @property
    def bytes_written(self) -> int:
        """In the file that is being written."""
        return self._writer.size

    @property
    def split_count(self) -> int:
        return len(self._finished) + 1

    def write(self, connection: Connection, log_ns: int, data: bytes) -> None:
        """Append a message in CDR, received at ``log_ns``.

        Raises:
            BagError: the disk is full, or cannot be written.
        """
        with writing_to(self._folder, _FULL):
            if self._is_due(log_ns):
                self._split(log_ns)
            message = Message(connection, log_ns, log_ns, 0, data)
            if connection not in self._connections:
                self._connections.append(connection)
            if is_latched(connection.qos):
                self._latched.setdefault(connection, deque(maxlen=_LATCHED_KEPT)).append(message)
            if self._first_ns is None:
                self._first_ns = log_ns
            self._writer.write(message)
            if self._writer.chunk_is_full():
                self._flush()

    def flush_if_due(self) -> None:
        """Bring to the file what waits for longer than a second; call it also while nothing comes.

        Raises:
            BagError: as ``write``, or the file was removed.
        """
        if time.monotonic() - self._flushed_s >= _FLUSH_S:
            if not (self._folder / self._file_name()).exists():  # one can write to it for hours
                raise BagError(f"{self._folder} was removed: what was recorded is lost")
            with writing_to(self._folder, _FULL):
                self._flush()
                self._writer.sync()

    def close(self) -> None:
        """Complete the bag."""
        with writing_to(self._folder, _FULL):
            self._finish()

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed_s = time.monotonic()

    def _is_due(self, log_ns: int) -> bool:
        if self._first_ns is None:
            return False
        too_large = 0 < self._split_bytes <= self._writer.size
        return too_large or 0 < self._split_ns <= log_ns - self._first_ns

    def _split(self, log_ns: int) -> None:
        self._finish()
        self._writer = self._new_file()
        self._first_ns = log_ns
        for connection in self._connections:
            self._writer.add(connection)
        for messages in self._latched.values():
            for message in messages:
                self._writer.write(message._replace(log_ns=log_ns, publish_ns=log_ns))

    def _new_file(self) -> McapWriter:
        return McapWriter(self._folder / self._file_name(), f"canet_ros {canet_ros.__version__}")

    def _file_name(self) -> str:
        return f"{self._folder.name}_{len(self._finished)}.mcap"

    def _finish(self) -> None:
        self._writer.flush()
        file = WrittenFile.of(self._file_name(), self._writer)
        self._writer.close(
            metadata_records(bag_information([file], self._custom, self._distribution), self._custom)
        )
        self._finished.append(file)
        write_metadata(self._folder, bag_information(self._finished, self._custom, self._distribution))
