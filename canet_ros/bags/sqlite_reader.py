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

import numpy as np
import zstandard

from canet_ros.bags.bag import BagError, Block, Connection, Losses, Message, StorageFile, message_bytes
from canet_ros.bags.qos import policies_as_numbers

_BLOCK_BYTES = 1 << 20
_ROWS_AT_ONCE = 1000
_MAX_ROWS_PER_PAGE = 200  # of a page of 4 kB, for a guess how far row numbers may go
# The others: names that are not text, and columns that are missing.
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError, KeyError)


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
        try:
            self._database = self._connect(path, work)
            # Else SQLite refuses a file shorter than its header says. Nothing is written: it is read-only.
            self._database.execute("PRAGMA writable_schema = ON")
            self._read_topics(path)
        except _DAMAGE as error:
            raise BagError(f"{path} cannot be read as a rosbag2 database: {error}") from error
        self._index(*self._scan(max(10_000, path.stat().st_size // 4096 * _MAX_ROWS_PER_PAGE)))

    def close(self) -> None:
        self._database.close()

    def read(self, block: Block) -> Iterator[Message]:
        rows = slice(block.offset, block.offset + block.length)
        for number, log_ns, topic in zip(*(a[rows].tolist() for a in (self._ids, self._times, self._topics))):
            connection = self.by_number.get(topic)
            try:
                row = self._database.execute("SELECT data FROM messages WHERE id = ?", (number,)).fetchone()
                data = row and row[0]
                if connection is not None and isinstance(data, bytes):
                    yield Message(connection, log_ns, log_ns, 0, message_bytes(data, connection))
                    continue
                problem = "rows without a known topic, or without data"
            except (zstandard.ZstdError, MemoryError):
                problem = "messages whose compression is damaged"
            except _DAMAGE:
                problem = "rows whose data is damaged"
            self._lose(problem, number, 1)

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

    def _scan(self, limit: int) -> tuple[array[int], array[int], array[int], array[int]]:
        """Ids, times, topics and sizes of all readable rows by id; ``limit``: no row beyond that behind damage."""
        columns = ids, times, topics, sizes = array("q"), array("q"), array("q"), array("q")
        number, step = -1, 1
        while True:
            before = number
            try:
                query = "SELECT id, timestamp, topic_id, length(data) FROM messages WHERE id > ? ORDER BY id LIMIT ?"
                for found, log_ns, topic, size in self._database.execute(query, (number, _ROWS_AT_ONCE)):
                    if found <= number:
                        raise sqlite3.DatabaseError("rows are out of order")
                    number, step = found, 1
                    if not isinstance(log_ns, int) or log_ns < 0:
                        self._lose("messages without a valid time", number, 1)
                        continue
                    for column, value in zip(columns, (found, log_ns, topic, size or 0)):
                        column.append(value if isinstance(value, int) else -1)
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
        return ids, times, topics, sizes

    def _index(self, ids: array[int], times: array[int], topics: array[int], sizes: array[int]) -> None:
        """Sort the rows by time, in blocks of about the same size."""
        by_id = np.array(times, np.int64)
        order = np.argsort(by_id, kind="stable")
        self._ids, self._times, self._topics = np.array(ids)[order], by_id[order], np.array(topics)[order]
        self.jumps_back = bool((np.diff(by_id) < 0).any())
        size = np.array(sizes)[order]
        ends = np.flatnonzero(np.diff(size.cumsum() // _BLOCK_BYTES, append=-1)) + 1
        for start, end in zip([0, *ends[:-1].tolist()], ends.tolist()):
            numbers = frozenset(np.unique(self._topics[start:end]).tolist())
            first_ns, last_ns = int(self._times[start]), int(self._times[end - 1])
            block_bytes = int(size[start:end].sum())
            self.blocks.append(
                Block(start, end - start, first_ns, last_ns, block_bytes, end - start, numbers)
            )
        found = dict(zip(*(part.tolist() for part in np.unique(self._topics, return_counts=True))))
        for number, connection in self.by_number.items():
            self.counts[connection] += found.get(number, 0)


def _text(value: object) -> str:
    """Text of a column, whatever type it has."""
    return value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)
