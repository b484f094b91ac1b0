# SPDX-License-Identifier: Apache-2.0
"""Reads sqlite3 files of rosbag2, of every version, including damaged ones.

Rows are found by their ids, in one pass that leaves out damaged pages, and sorted by time here: files differ in their
indexes, and a damaged index names rows that do not exist.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import zstandard

from canet_ros.bags.bag import BagError, Block, Connection, Losses, Message, StorageFile, message_bytes
from canet_ros.bags.qos import policies_as_numbers

_BLOCK_BYTES = 1 << 20
_ROWS_AT_ONCE = 1000
_MAX_ROWS_PER_PAGE = 200  # of a page of 4 kB, for a guess how far row numbers may go
# The others: names that are not text, and columns and rows that are missing.
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError, KeyError, TypeError)


class SqliteFile(StorageFile):
    """One db3 file, opened read-only.

    Args:
        work: folder for copies. A file whose recorder was killed is copied there with its journal, because SQLite
            repairs the file when it opens it.

    Raises:
        BagError: it is not an SQLite database of rosbag2.
    """

    def __init__(self, path: Path, losses: Losses, work: Path) -> None:
        super().__init__(path, losses)
        self._rows: list[array[int]] = []  # ids of each block's rows
        try:
            self._database = self._connect(path, work)
            # Else SQLite refuses a file shorter than its header says. Nothing is written: it is read-only.
            self._database.execute("PRAGMA writable_schema = ON")
            self._read_topics(path)
            self.counts.update(dict.fromkeys(self.by_number.values(), 0))
        except _DAMAGE as error:
            raise BagError(f"{path} cannot be read as a rosbag2 database: {error}") from error
        self._index(max(10_000, path.stat().st_size // 4096 * _MAX_ROWS_PER_PAGE))

    def close(self) -> None:
        self._database.close()

    def read(self, block: Block) -> Iterator[Message]:
        """The messages of a block by log time; damaged ones are added to the losses."""
        query = "SELECT timestamp, topic_id, data FROM messages WHERE id = ?"
        messages = []
        for number in self._rows[block.offset]:
            try:
                log_ns, topic, data = self._database.execute(query, (number,)).fetchone()
                connection = self.by_number.get(topic)
                if connection is not None and isinstance(data, bytes):
                    data = message_bytes(data, connection)
                    messages.append(Message(connection, log_ns, log_ns, 0, data))
                    continue
                problem = "rows without a known topic, or without data"
            except (zstandard.ZstdError, MemoryError):
                problem = "messages whose compression is damaged"
            except _DAMAGE:
                problem = "rows whose data is damaged"
            self._lose(problem, number, 1)
        return iter(sorted(messages, key=lambda message: message.log_ns))

    def _connect(self, path: Path, work: Path) -> sqlite3.Connection:
        path = path.resolve()
        journals = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
        journals = [journal for journal in journals if journal.is_file() and journal.stat().st_size]
        options = "mode=ro&immutable=1"
        if journals:
            self._lose("never closed; its journal is read too")
            work.mkdir(parents=True, exist_ok=True)
            for file in (path, *journals):
                shutil.copyfile(file, work / file.name)
            path, options = work / path.name, "mode=rw"
        address = f"file:{quote(os.fsencode(path))}?{options}"
        database = sqlite3.connect(address, uri=True, check_same_thread=False)
        database.text_factory = lambda data: data.decode(errors="replace")
        return database

    def _read_topics(self, path: Path) -> None:
        execute = self._database.execute
        tables = {name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"topics", "messages"} <= tables:
            raise BagError(f"{path} is not a rosbag2 database: it lacks the tables topics and messages")
        definitions = {}
        if "message_definitions" in tables:
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            definitions = {_text(name): (_text(how), _text(what)) for name, how, what in execute(query)}
        found = execute("SELECT * FROM topics ORDER BY id")
        names = [column[0] for column in found.description]  # older distributions have fewer columns
        for row in found:
            topic: dict[str, Any] = {
                name: value if name == "id" else _text(value) for name, value in zip(names, row)
            }
            how, definition = definitions.get(topic["type"], ("", ""))
            self.by_number[topic["id"]] = Connection(
                topic["name"],
                topic["type"],
                topic["serialization_format"] or "cdr",
                policies_as_numbers(topic.get("offered_qos_profiles")),
                how if definition else "",
                definition.encode(),
                topic.get("type_description_hash", ""),
            )

    def _index(self, limit: int) -> None:
        """Find all readable rows by id, in blocks of about the same size; ``limit``: none beyond that behind damage."""
        query = "SELECT id, timestamp, topic_id, length(data) FROM messages WHERE id > ? ORDER BY id LIMIT ?"
        number, step, newest_ns = -1, 1, 0
        while True:
            before = number
            try:
                for row, log_ns, topic, size in self._database.execute(query, (number, _ROWS_AT_ONCE)):
                    if row <= number:
                        raise sqlite3.DatabaseError("rows are out of order")
                    number, step = row, 1
                    if not isinstance(log_ns, int) or log_ns < 0:
                        self._lose("messages without a valid time", number, 1)
                        continue
                    if not self.blocks or self.blocks[-1].size > _BLOCK_BYTES:
                        self.blocks.append(Block(len(self._rows), 0, log_ns, log_ns))
                        self._rows.append(array("q"))
                    self._rows[-1].append(row)
                    self.blocks[-1].add(topic, log_ns, size if isinstance(size, int) else 0)
                    self.jumps_back |= log_ns < newest_ns
                    newest_ns = max(newest_ns, log_ns)
                    if topic in self.by_number:
                        self.counts[self.by_number[topic]] += 1
                if number == before:
                    break
            except _DAMAGE as error:
                self._lose(
                    f"the database is damaged ({error}); reading row by row; "
                    f"sqlite3 {self._name} .recover may recover more"
                )
                if number > limit:
                    break
                number, step = number + step, step * 2


def _text(value: object) -> str:
    """Text of a column, whatever type it has."""
    return value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)
