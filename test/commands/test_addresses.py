# SPDX-License-Identifier: Apache-2.0
"""Bags at fsspec's addresses: in its memory, in its file system of local files, and in processes of their own."""

from __future__ import annotations

import errno
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from drives import Recorded, Segment, read_bag, write_bag

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TMPDIR, which must be left empty."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


@pytest.fixture
def source(messages: Sequence[Recorded], tmp_path: Path) -> Path:
    return write_bag(tmp_path / "drive", messages[:9])


def left(scratch: Path) -> list[Path]:
    return [path for path in scratch.rglob("*") if path.is_file()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_from_memory_to_memory_and_back(
    source: Path, segment: Segment, tmp_path: Path, scratch: Path, memory: fsspec.AbstractFileSystem,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    memory.put(str(source), "/bucket/", recursive=True)
    assert segment("memory://bucket/drive", "memory://bucket/out/week") == 0
    assert sorted(memory.find("/bucket/out")) == [
        "/bucket/out/week/metadata.yaml",
        "/bucket/out/week/week_0.mcap",
    ]
    assert left(scratch) == []
    assert segment(source, tmp_path / "week") == 0
    brought = {Path(name).name: memory.cat(name) for name in memory.find("/bucket/out/week")}
    assert brought == files(tmp_path / "week")
    one = "memory://bucket/out/week/week_0.mcap"
    assert segment(one, tmp_path / "again.mcap", "--only-results") == 0
    assert not (tmp_path / "again.mcap.source").exists()

    for options, status, printed in (
        ((), 1, "exists: give another name"),
        (("--resume",), 0, ""),
        (("--force", "--only-results"), 0, ""),
    ):
        assert segment("memory://bucket/drive", "memory://bucket/out/week", *options) == status
        assert printed in capsys.readouterr().err
    assert memory.cat("/bucket/out/week/week_0.mcap") != brought["week_0.mcap"]
    assert segment(source, "memory://bucket", "--force") == 1
    assert "contains other files" in capsys.readouterr().err
    assert memory.exists("/bucket/drive/metadata.yaml")
    assert left(scratch) == []


def test_unreachable_addresses_are_one_line(
    source: Path, segment: Segment, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for given, printed in (
        (("memory://nothing/here", tmp_path / "out"), "memory://nothing/here does not exist"),
        (("nope://bucket/drive", tmp_path / "out"), "nope://bucket/drive: Protocol not known"),
        ((source, "nope://bucket/drive"), "nope://bucket/drive: Protocol not known"),
    ):
        assert segment(*given) == 1
        assert printed in capsys.readouterr().err.strip().splitlines()[-1]
    with pytest.raises(SystemExit):
        segment(source, tmp_path / "out", "--json", "s3://bucket/summary.json")
    assert "s3://bucket/summary.json is an address, not a path" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert segment("memory://bucket/drive", tmp_path / "out") == 1
    assert "needs fsspec: pip install fsspec" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert left(scratch) == []


def test_a_bag_that_cannot_be_uploaded_is_kept(
    source: Path, segment: Segment, scratch: Path, memory: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(memory), "put_file", full)
    assert segment(source, "memory://bucket/out") == 1
    (kept,) = scratch.glob("*/out/out")
    printed = capsys.readouterr().err
    assert "memory://bucket/out: [Errno 28] No space left" in printed
    assert f"the local copy is {kept}" in printed
    assert read_bag(kept)
