# SPDX-License-Identifier: Apache-2.0
"""Reads sqlite3 files of rosbag2, of every version, including damaged ones row by row."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import zstandard

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

_LAST_NS = 2**63 - 1
_ROWS_AT_ONCE = 1000
_MAX_ROWS_PER_PAGE = 200  # of a page of 4 kB, for a guess how far row numbers may go
_DAMAGE = (
    sqlite3.DatabaseError,
    UnicodeDecodeError,
)  # the latter for names that are not text
_Row = tuple[int, int, object, object]  # time, id, topic id, data
_WITH_TIME = "typeof(timestamp) = 'integer' AND timestamp >= 0"


class SqliteFile:
    """One db3 file, opened read-only; attributes and methods as of ``McapFile``.

    Args:
        work: folder for copies. A file whose recorder was killed is copied there with its journal, because SQLite
            repairs the file when it opens it.

    Raises:
        BagError: it cannot be opened, or is not an SQLite database of rosbag2.
    """

    def __init__(self, path: Path, work: Path) -> None:
        self.connections: list[Connection] = []
        self.counts: dict[Connection, int] = {}  # empty if the file is too damaged to count them
        self.losses = Losses()
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self.out_of_order = 0
        self._name = path.name
        self._by_topic: dict[int, Connection] = {}
        self._damaged = False
        self._rows: list[tuple[int, int]] | None = None
        self._size = path.stat().st_size
        if self._size == 0:
            raise BagError(f"{path} is empty: 0 bytes")
        try:
            self._database = self._connect(path, work)
            try:
                self._read_topics(path)
            except _DAMAGE as error:
                self._salvage(error)
                # Without it SQLite refuses a file shorter than its header says. Nothing is written: it is read-only.
                self._database.execute("PRAGMA writable_schema = ON")
                self._read_topics(path)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise BagError(f"{path} cannot be read as a rosbag2 database: {error}") from error
        try:
            self._read_counts()
        except _DAMAGE as error:
            self._salvage(error)
            rows = self._salvaged_rows()
            if rows:
                self.start_ns, self.end_ns = rows[0][0], rows[-1][0]

    def close(self) -> None:
        self._database.close()

    def messages(self, start_ns: int, end_ns: int, streams: Streams = None) -> Iterator[Message]:
        last, last_id = (-1, 0), -1
        for log_ns, number, topic, data in self._rows_by_time(start_ns, end_ns, streams):
            if (log_ns, number) <= last:
                continue
            last = log_ns, number
            self.out_of_order += streams is None and number < last_id
            last_id = max(last_id, number)
            if (message := self._message(number, log_ns, topic, data, streams)) is not None:
                yield message

    def newest_first(self, stream: Stream, before_ns: int) -> Iterator[Message]:
        for row in self._rows_by_time(0, before_ns, {stream}, newest_first=True):
            log_ns, number, topic, data = row
            if (message := self._message(number, log_ns, topic, data, {stream})) is not None:
                yield message

    def _rows_by_time(
        self, start_ns: int, end_ns: int, streams: Streams, newest_first: bool = False
    ) -> Iterator[_Row]:
        """Yield rows by time; starts over if the database turns out to be damaged."""
        if not self._damaged:
            topics = [
                number for number, c in self._by_topic.items() if streams is None or c.stream in streams
            ]
            condition = _WITH_TIME
            if streams is not None:
                condition += f" AND topic_id IN ({', '.join(map(str, topics))})"
            limits = min(start_ns, _LAST_NS), min(end_ns, _LAST_NS)
            condition += f" AND timestamp >= ? AND timestamp {'<=' if end_ns > _LAST_NS else '<'} ?"
            order = "timestamp DESC, id DESC" if newest_first else "timestamp, id"
            query = f"SELECT timestamp, id, topic_id, data FROM messages WHERE {condition} ORDER BY {order}"
            execute = self._database.execute
            try:
                plan = " ".join(row[3] for row in execute(f"EXPLAIN QUERY PLAN {query}", limits))
                if "TEMP B-TREE" not in plan:
                    yield from execute(query, limits)
                    return
                # Without an index of times SQLite would sort all data; times and ids alone fit into memory.
                for log_ns, number in execute(query.replace(", topic_id, data", ""), limits):
                    yield log_ns, number, *self._row(number)
                return
            except _DAMAGE as error:
                self._salvage(error)
        for log_ns, number in reversed(self._salvaged_rows()) if newest_first else self._salvaged_rows():
            if start_ns <= log_ns < end_ns:
                try:
                    yield log_ns, number, *self._row(number)
                except _DAMAGE:
                    yield log_ns, number, None, None

    def _row(self, number: int) -> tuple[object, object]:
        query = "SELECT topic_id, data FROM messages WHERE id = ?"
        return self._database.execute(query, (number,)).fetchone() or (None, None)

    def _message(
        self, number: int, log_ns: int, topic: object, data: object, streams: Streams
    ) -> Message | None:
        """The message of a row; None: it is not of these streams, or lost."""
        connection = self._by_topic.get(topic)  # type: ignore[call-overload]
        if connection is None or not isinstance(data, bytes):
            self.losses.add(f"{self._name}: rows without a known topic, or without data", number, 1)
            return None
        if streams is not None and connection.stream not in streams:
            return None
        try:
            return Message(connection, log_ns, log_ns, 0, message_bytes(data, connection))
        except (zstandard.ZstdError, MemoryError):
            self.losses.add(f"{self._name}: messages whose compression is damaged", number, 1)
            return None

    def _connect(self, path: Path, work: Path) -> sqlite3.Connection:
        path = path.resolve()
        journals = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
        journals = [journal for journal in journals if journal.is_file() and journal.stat().st_size]
        options = "mode=ro&immutable=1"
        if journals:
            self.losses.add(f"{self._name}: never closed; its journal is read too")
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
            definitions = {
                type_name(_text(name)): (_text(how), _text(what)) for name, how, what in execute(query)
            }
        there = {row[1] for row in execute("PRAGMA table_info(topics)")}
        columns = (
            "id",
            "name",
            "type",
            "serialization_format",
            "offered_qos_profiles",
            "type_description_hash",
        )
        select = ", ".join(name if name in there else f"'' AS {name}" for name in columns)
        for number, topic, msgtype, encoding, qos, type_hash in execute(
            f"SELECT {select} FROM topics ORDER BY id"
        ):
            if not isinstance(topic, str) or not isinstance(number, int):
                continue
            how, definition = definitions.get(type_name(_text(msgtype)), ("", ""))
            self._by_topic[number] = Connection(
                topic,
                type_name(_text(msgtype)),
                _text(encoding) or "cdr",
                policies_as_numbers(_text(qos)),
                how if definition else "",
                definition.encode(),
                _text(type_hash),
            )
        self.connections = list(dict.fromkeys(self._by_topic.values()))

    def _read_counts(self) -> None:
        query = f"SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages WHERE {_WITH_TIME} GROUP BY 1"
        groups = self._database.execute(query).fetchall()
        self.start_ns = min((first for _, _, first, _ in groups), default=None)
        self.end_ns = max((last for *_, last in groups), default=None)
        self.counts = dict.fromkeys(self.connections, 0)
        for topic, count, *_ in groups:
            if topic in self._by_topic:
                self.counts[self._by_topic[topic]] += count
        (rows,) = self._database.execute("SELECT count(*) FROM messages").fetchone()
        without = rows - sum(count for _, count, *_ in groups)
        if without:
            self.losses.add(f"{self._name}: messages without a valid time", "no time", without)

    def _salvage(self, error: Exception) -> None:
        """Read by row id from here on."""
        self._damaged = True
        self.losses.add(
            f"{self._name}: the database is damaged ({error}); reading row by row; "
            f"sqlite3 {self._name} .recover may recover more"
        )

    def _salvaged_rows(self) -> list[tuple[int, int]]:
        """Times and ids of the readable rows, by time; skips damaged parts."""
        if self._rows is not None:
            return self._rows
        rows = []
        number, step = 0, 1
        limit = max(10_000, self._size // 4096 * _MAX_ROWS_PER_PAGE)
        while number < limit:
            before = number
            try:
                query = "SELECT timestamp, id FROM messages WHERE id > ? ORDER BY id LIMIT ?"
                for log_ns, found in self._database.execute(query, (number, _ROWS_AT_ONCE)):
                    if found <= number:
                        raise sqlite3.DatabaseError("rows are out of order")
                    number, step = found, 1
                    if isinstance(log_ns, int) and log_ns >= 0:
                        rows.append((log_ns, found))
                if number == before:
                    break
            except _DAMAGE:
                number, step = number + step, step * 2
        self._rows = sorted(rows)
        return self._rows


def _text(value: object) -> str:
    """Text of a column, whatever type it has."""
    return value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)
