# SPDX-License-Identifier: Apache-2.0
"""Damaged bags: what can be read is read, losses are named, and the exit status is 3."""

from __future__ import annotations

import contextlib
import random
import resource
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path

import drives
import pytest
import zstandard
from drives import (
    Recorded,
    Segment,
    bag_of,
    carried,
    change_metadata,
    joined,
    read_bag,
    records,
    storage_file,
    write_bag,
)
from mcap.opcode import Opcode
from mcap.writer import MCAP0_MAGIC

from canet_ros.bags.bag import BagError
from canet_ros.bags.reading import open_bag


@pytest.fixture(scope="module")
def many() -> Sequence[Recorded]:
    """Enough for several chunks."""
    return drives.drive_messages(drives.images(12, 320, 240))


def read_all(path: Path, work: Path) -> tuple[list[Recorded], list[str]]:
    with open_bag(path, work) as bag:
        found = [Recorded(m.connection.topic, m.connection.msgtype, m.log_ns, m.data) for m in bag.messages()]
        return found, list(bag.losses.problems)


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def unindexed(path: Path) -> None:
    """The same chunks without message indexes and summary."""
    data = (Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.CHUNK)
    kept = [record(opcode, content) for opcode, content in records(path.read_bytes()) if opcode in data]
    kept += [record(Opcode.DATA_END, bytes(4)), record(Opcode.FOOTER, bytes(20))]
    path.write_bytes(MCAP0_MAGIC + b"".join(kept) + MCAP0_MAGIC)


def flip(path: Path) -> None:
    """Spoil the head of the second chunk's compressed records."""
    data = bytearray(path.read_bytes())
    start = data.index(b"\x28\xb5\x2f\xfd", data.index(b"\x28\xb5\x2f\xfd") + 4)
    for at in range(start, start + 100):
        data[at] ^= 0x5A
    path.write_bytes(bytes(data))


def no_metadata(path: Path) -> None:
    (path.parent / "metadata.yaml").unlink()


def as_of_foxy(path: Path) -> None:
    no_metadata(path)
    with sqlite3.connect(path) as database:
        for table in ("schema", "metadata", "message_definitions"):
            database.execute(f"DROP TABLE {table}")
        database.execute("ALTER TABLE topics DROP COLUMN offered_qos_profiles")
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
        database.execute("DROP INDEX timestamp_idx")
    database.close()


def broken_metadata(path: Path) -> None:
    (path.parent / "metadata.yaml").write_bytes(b"rosbag2_bagfile_information: [\xff")


def half_a_page(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 4096 * 3 - 2048])


DAMAGE = {
    "mcap: cut in a chunk": ("mcap", "none", lambda path: cut(path, 0.6), 0.4),
    "mcap: cut in a zstd chunk": ("mcap", "storage", lambda path: cut(path, 0.6), 0.2),
    "mcap: index cut off": ("mcap", "none", lambda path: cut(path, 0.998), 0.9),
    "mcap: unindexed": ("mcap", "none", unindexed, 1.0),
    "mcap: bytes flipped in zstd": ("mcap", "storage", flip, 0.3),
    "mcap: no metadata.yaml": ("mcap", "none", no_metadata, 1.0),
    "mcap: a cut zstd file": ("mcap", "file", lambda path: cut(path, 0.5), 0.1),
    "db3: metadata.yaml broken": ("sqlite3", "none", broken_metadata, 1.0),
    "db3: as of Foxy": ("sqlite3", "none", as_of_foxy, 1.0),
    "db3: a page half written": ("sqlite3", "none", half_a_page, 0.5),
    "db3: cut": ("sqlite3", "none", lambda path: cut(path, 0.6), 0.2),
    "db3: a cut zstd file": ("sqlite3", "file", lambda path: cut(path, 0.7), 0.1),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_readable_parts_are_read_and_losses_reported(
    kind: str, many: Sequence[Recorded], tmp_path: Path
) -> None:
    storage, compression, damage, least = DAMAGE[kind]
    source = write_bag(tmp_path / "in", many, storage, compression)
    damage(storage_file(source))
    found, sentences = read_all(source, tmp_path / "work")
    assert sentences
    if damage is flip:
        assert "mcap recover" in str(sentences)
    if damage is half_a_page:
        assert ".recover" in str(sentences)
    assert len(found) >= least * len(many)
    known = {(m.topic, m.msgtype, m.log_ns, m.data) for m in many}
    assert {(m.topic, m.msgtype, m.log_ns, m.data) for m in found} <= known
    assert [m.log_ns for m in found] == sorted(m.log_ns for m in found)


def test_exit_3_unless_salvage(
    many: Sequence[Recorded], segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_bag(tmp_path / "in", many)
    cut(storage_file(source), 0.7)
    assert segment(source, tmp_path / "out") == 3
    error = capsys.readouterr().err
    assert "truncated, or never closed" in error
    assert "messages are lost" in error
    written = carried(read_bag(tmp_path / "out"))
    assert written == list(many)[: len(written)]
    assert segment(source, tmp_path / "again", "--salvage") == 0
    assert read_bag(tmp_path / "again") == read_bag(tmp_path / "out")


def test_files_that_metadata_names_in_vain_or_not_at_all(many: Sequence[Recorded], tmp_path: Path) -> None:
    """A split was deleted, and a recorder that was killed did not enter the last one."""
    parts = [many[:20], many[20:30], many[30:]]
    bag = joined(tmp_path / "in", *(bag_of(tmp_path / str(n), part) for n, part in enumerate(parts)))
    (bag / "in_1.mcap").rename(bag / "in_9.mcap")
    (bag / "in_2.mcap").rename(bag / "in_10.mcap")
    change_metadata(bag, relative_file_paths=["bags/in_0.mcap", "in_5.mcap", "in_9.mcap"])
    found, sentences = read_all(bag, tmp_path / "work")
    assert found == list(many)
    assert sentences == [
        "in_5.mcap, which metadata.yaml names, is missing",
        "metadata.yaml does not name in_10.mcap: the recording did not end properly",
    ]


def test_the_journal_of_a_killed_recorder_is_read_on_a_copy(many: Sequence[Recorded], tmp_path: Path) -> None:
    source = write_bag(tmp_path / "in", many, "sqlite3")
    file = storage_file(source)
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode = wal")
    database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, x'0001')", (2**62,))
    database.commit()
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in source.iterdir():
        if not path.name.endswith("-shm"):
            (copy / path.name).write_bytes(path.read_bytes())
    database.close()
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert any(name.endswith("-wal") for name in before)
    found, sentences = read_all(copy, tmp_path / "work")
    assert len(found) == len(many) + 1
    assert "never closed" in sentences[0]
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_random_damage_is_never_a_traceback(
    storage: str, messages: Sequence[Recorded], tmp_path: Path
) -> None:
    whole = storage_file(
        write_bag(tmp_path / "in", messages, storage, "storage" if storage == "mcap" else "none")
    )
    original = whole.read_bytes()
    luck = random.Random(3)
    for number in range(40):
        data = bytearray(original)
        for _ in range(luck.choice((1, 3, 30))):
            at = luck.randrange(len(data))
            data[at : at + luck.choice((1, 8, 500))] = luck.randbytes(luck.choice((0, 1, 8, 500)))
        path = tmp_path / f"{number}{whole.suffix}"
        path.write_bytes(bytes(data))
        with contextlib.suppress(BagError):
            read_all(path, tmp_path / "work")


def test_messages_without_a_time_are_counted(
    many: Sequence[Recorded], segment: Segment, tmp_path: Path
) -> None:
    bag = write_bag(tmp_path / "bag", many, "sqlite3")
    with sqlite3.connect(storage_file(bag)) as database:
        database.execute("UPDATE messages SET timestamp = 'noon' WHERE id < 3")
        database.execute("UPDATE topics SET type = x'ff' WHERE name = '/chatter'")
    database.close()
    assert segment(bag, tmp_path / "out", "--every", 6) == 3
    assert len(carried(read_bag(tmp_path / "out"))) == len(many) - 2


def chunk(content: bytes, size: int, compression: str = "zstd") -> bytes:
    """A chunk of these compressed records, of which it says that they are ``size`` bytes."""
    head = struct.pack("<QQQI", drives.START_NS, drives.START_NS, size, 0)
    head += len(compression).to_bytes(4, "little") + compression.encode()
    return record(Opcode.CHUNK, head + len(content).to_bytes(8, "little") + content)


def record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


def zeros(size: int, announced: bool) -> bytes:
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=size if announced else -1)
    pieces = [compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join(pieces) + compressor.flush()


@pytest.mark.parametrize(
    "before",
    [
        chunk(b"", 8 << 30),
        chunk(zeros(3 << 30, True), 1000),
        chunk(zeros(3 << 30, False), 1000),
    ],
    ids=["declared", "a frame that knows more", "a frame that does not say"],
)
def test_what_announces_gigabytes_fills_no_memory(
    before: bytes, many: Sequence[Recorded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = storage_file(write_bag(tmp_path / "in", many, "mcap", "storage")).read_bytes()
    head = 8 + next(9 + len(content) for _, content in records(whole))
    path = tmp_path / "drive.mcap"
    path.write_bytes(whole[:head] + before + whole[head:-8])
    limit = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), limit[1]))
    try:
        found, sentences = read_all(path, tmp_path / "work")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert found == list(many)
    assert sentences


@pytest.mark.parametrize("bad", [struct.pack("<BQ", Opcode.MESSAGE, 3 << 30) + bytes(40), bytes(100)])
def test_what_comes_before_damage_is_kept_and_the_rest_has_a_tool(
    bad: bytes, many: Sequence[Recorded], tmp_path: Path
) -> None:
    """Records whose lengths lead nowhere, in the middle of a file without an index."""
    whole = storage_file(write_bag(tmp_path / "in", many)).read_bytes()
    ends = [8]
    for opcode, content in records(whole):
        ends.append(ends[-1] + 9 + len(content))
        if opcode == Opcode.CHUNK and len(ends) > 4:
            break
    path = tmp_path / "drive.mcap"
    path.write_bytes(whole[: ends[-1]] + bad + whole[ends[-1] : -8])
    found, sentences = read_all(path, tmp_path / "work")
    assert 0 < len(found) < len(many)
    assert found == list(many)[: len(found)]
    assert any(
        f"damaged at byte {ends[-1]}" in text and "mcap recover drive.mcap" in text for text in sentences
    )
