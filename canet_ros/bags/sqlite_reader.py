# SPDX-License-Identifier: Apache-2.0
"""Reads the sqlite3 files of rosbag2, of every version; also what is left of a damaged one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

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

_ROWS_AT_ONCE = 1000
_MAX_ROWS_PER_PAGE = 200  # of a page of 4 kB, for a guess how far row numbers may go


class SqliteFile:
    """One db3 file, opened for reading alone.

    Args:
        work: folder of our own. A file whose recorder was killed is copied there with its journal, because SQLite
            mends what it opens.

    Raises:
        BagError: it cannot be opened, is no SQLite database, or none of rosbag2.
    """

    in_time_order = True

    def __init__(self, path: Path, work: Path) -> None:
        self.connections: list[Connection] = []
        self.counts: dict[str, int] = {}
        self.losses = Losses()
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self.out_of_order = 0
        self._name = path.name
        self._by_topic: dict[int, Connection] = {}
        self._damaged = False
        self._size = path.stat().st_size
        if self._size == 0:
            raise BagError(f"{path} is empty: 0 bytes")
        try:
            self._database = self._connect(path, work)
            try:
                self._read_topics(path)
            except sqlite3.DatabaseError as error:
                self._say_damaged(error)
                # Else SQLite opens no file that is shorter than its header says. Nothing is written: it is read-only.
                self._database.execute("PRAGMA writable_schema = ON")
                self._read_topics(path)
        except sqlite3.Error as error:
            raise BagError(f"{path} is no database of rosbag2 that can be read: {error}") from error
        self._read_times()

    def close(self) -> None:
        self._database.close()

    def messages(self, start_ns: int, end_ns: int, streams: Streams = None) -> Iterator[Message]:
        topics = {number for number, other in self._by_topic.items() if streams and other.stream in streams}
        last = (start_ns, -1)
        last_id = -1
        if self._indexed and not self._damaged:
            try:
                for number, topic, log_ns, data in self._database.execute(
                    "SELECT id, topic_id, timestamp, data FROM messages WHERE timestamp >= ? AND timestamp <= ? "
                    f"{_of(topics, streams)} ORDER BY timestamp, id",
                    (_storable(start_ns), _storable(end_ns - 1)),
                ):
                    last = (log_ns, number)
                    self.out_of_order += number < last_id
                    last_id = max(last_id, number)
                    yield from self._message(topic, log_ns, data)
                return
            except sqlite3.DatabaseError as error:
                self._say_damaged(error)
        numbers = self._row_numbers(start_ns, end_ns)
        for log_ns, number in numbers[np.lexsort((numbers[:, 1], numbers[:, 0]))].tolist():
            if (log_ns, number) <= last:
                continue
            self.out_of_order += number < last_id
            last_id = max(last_id, number)
            try:
                row = self._database.execute(
                    "SELECT topic_id, data FROM messages WHERE id = ?", (number,)
                ).fetchone()
            except sqlite3.DatabaseError as error:
                self._say_damaged(error)
                row = None
            if row is None:
                self.losses.messages += 1
            elif streams is None or row[0] in topics:
                yield from self._message(row[0], log_ns, row[1])

    def newest_first(self, stream: Stream, before_ns: int) -> Iterator[Message]:
        topics = [number for number, other in self._by_topic.items() if other.stream == stream]
        try:
            for topic in topics:
                for number, log_ns in self._database.execute(
                    "SELECT id, timestamp FROM messages WHERE topic_id = ? AND timestamp >= 0 AND timestamp < ? "
                    "ORDER BY timestamp DESC, id DESC",
                    (topic, _storable(before_ns)),
                ):
                    query = "SELECT data FROM messages WHERE id = ?"
                    (data,) = self._database.execute(query, (number,)).fetchone()
                    yield from self._message(topic, log_ns, data)
        except sqlite3.DatabaseError as error:
            self._say_damaged(error)

    def _message(self, topic: int, log_ns: object, data: object) -> Iterator[Message]:
        connection = self._by_topic.get(topic)
        if connection is None or not isinstance(data, bytes) or not isinstance(log_ns, int):
            self.losses.messages += 1
            self.losses.say(f"{self._name}: rows that belong to no topic, or hold no time or no bytes")
            return
        unpacked = message_bytes(data, connection, self.losses, self._name)
        if unpacked is not None:
            yield Message(connection, log_ns, log_ns, 0, unpacked)

    def _connect(self, path: Path, work: Path) -> sqlite3.Connection:
        path = path.resolve()
        journals = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
        journals = [journal for journal in journals if journal.is_file() and journal.stat().st_size]
        options = "mode=ro&immutable=1"
        if journals:
            self.losses.say(f"{self._name}: it was never closed; its journal is read too")
            work.mkdir(parents=True, exist_ok=True)
            for file in (path, *journals):
                shutil.copyfile(file, work / file.name)
            path, options = work / path.name, "mode=rw"
        database = sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?{options}", uri=True, check_same_thread=False
        )
        database.text_factory = lambda data: data.decode(errors="replace")
        return database

    def _read_topics(self, path: Path) -> None:
        tables = {
            name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if not {"topics", "messages"} <= tables:
            raise BagError(f"{path} is a database, but none of rosbag2: it has no tables topics and messages")
        columns = {row[1] for row in self._database.execute("PRAGMA table_info(topics)")}
        wanted = [
            "id",
            "name",
            "type",
            "serialization_format",
            "offered_qos_profiles",
            "type_description_hash",
        ]
        select = ", ".join(name if name in columns else f"'' AS {name}" for name in wanted)
        definitions: dict[str, tuple[str, str]] = {}
        if "message_definitions" in tables:
            rows = self._database.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            definitions = {
                type_name(_text(name)): (_text(encoding), _text(text)) for name, encoding, text in rows
            }
        for number, topic, msgtype, encoding, qos, type_hash in self._database.execute(
            f"SELECT {select} FROM topics ORDER BY id"
        ):
            name = type_name(_text(msgtype))
            definition_encoding, definition = definitions.get(name, ("", ""))
            if not isinstance(topic, str) or not isinstance(number, int):
                continue
            if not definition:
                definition_encoding = ""
            connection = Connection(
                topic,
                name,
                _text(encoding) or "cdr",
                policies_as_numbers(_text(qos)),
                definition_encoding,
                definition.encode(),
                _text(type_hash),
            )
            self._by_topic[number] = connection
            if connection not in self.connections:
                self.connections.append(connection)
        indexes = [row[1] for row in self._database.execute("PRAGMA index_list(messages)")]
        first_columns = [
            next((row[2] for row in self._database.execute(f'PRAGMA index_info("{index}")')), "")
            for index in indexes
        ]
        self._indexed = "timestamp" in first_columns

    def _read_times(self) -> None:
        try:
            if self._indexed:
                impossible = (
                    "timestamp < 0 OR timestamp IS NULL OR timestamp >= ''"  # the latter: what is no number
                )
                query = f"SELECT count(*) FROM messages WHERE {impossible}"
                (count,) = self._database.execute(query).fetchone()
                if count:
                    self.losses.messages += count
                    self.losses.say(f"{self._name}: messages without a time, or of one before 1970")
                # Two queries: asked together, SQLite would go through all rows.
                for order, end in (("", "start_ns"), ("DESC", "end_ns")):
                    row = self._database.execute(
                        "SELECT timestamp FROM messages WHERE timestamp >= 0 AND typeof(timestamp) = 'integer' "
                        f"ORDER BY timestamp {order} LIMIT 1"
                    ).fetchone()
                    setattr(self, end, row and row[0])
                return
        except sqlite3.DatabaseError as error:
            self._say_damaged(error)
        numbers = self._row_numbers(0, 2**63 - 1)
        if len(numbers):
            self.start_ns, self.end_ns = int(numbers[:, 0].min()), int(numbers[:, 0].max())

    def _row_numbers(self, start_ns: int, end_ns: int) -> NDArray[np.int64]:
        """Times and numbers (n, 2) of the rows that can be found, by the index or by the table, in no order."""
        found: set[tuple[int, int]] = set()
        if self._indexed:
            try:
                query = f"SELECT timestamp, id FROM messages INDEXED BY {self._index_name()}"
                found.update(row for row in self._database.execute(query) if isinstance(row[0], int))
            except sqlite3.DatabaseError as error:
                self._say_damaged(error)
        if not self._indexed or self._damaged:
            found.update(self._table_rows())
        numbers = np.array(sorted(found), np.int64).reshape(-1, 2)
        return numbers[(numbers[:, 0] >= start_ns) & (numbers[:, 0] < end_ns)]

    def _index_name(self) -> str:
        for row in self._database.execute("PRAGMA index_list(messages)").fetchall():
            first = self._database.execute(f'PRAGMA index_info("{row[1]}")').fetchone()
            if first and first[2] == "timestamp":
                return f'"{row[1]}"'
        raise sqlite3.DatabaseError("no index of times")

    def _table_rows(self) -> Iterator[tuple[int, int]]:
        """Times and numbers from the table itself, stepping over what is damaged."""
        number, step = 0, 1
        limit = max(10_000, self._size // 4096 * _MAX_ROWS_PER_PAGE)
        while number < limit:
            before = number
            try:
                for log_ns, found in self._database.execute(
                    "SELECT timestamp, id FROM messages WHERE id > ? ORDER BY id LIMIT ?",
                    (number, _ROWS_AT_ONCE),
                ):
                    if found <= number:
                        raise sqlite3.DatabaseError("rows are out of order")
                    number, step = found, 1
                    if isinstance(log_ns, int):
                        yield log_ns, found
                if number == before:
                    return
            except sqlite3.DatabaseError as error:
                self._say_damaged(error)
                number, step = number + step, step * 2

    def _say_damaged(self, error: sqlite3.Error) -> None:
        self._damaged = True
        self.losses.say(f"{self._name}: the database is damaged ({error}); it is read row by row")


def _of(topics: Collection[int], streams: Streams) -> str:
    return "" if streams is None else f"AND topic_id IN ({', '.join(map(str, topics))})"


def _text(value: object) -> str:
    """A column that ought to hold text, whatever it does hold."""
    return value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)


def _storable(time_ns: int) -> int:
    return max(-(2**63), min(time_ns, 2**63 - 1))
