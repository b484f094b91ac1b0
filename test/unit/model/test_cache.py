# SPDX-License-Identifier: Apache-2.0
"""Derived files: built once, whole or not at all. Many processes at once: test_engine_faults.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from canet_ros.model import cache

pytestmark = pytest.mark.usefixtures("own_cache")


def build(path: Path) -> None:
    path.write_bytes(b"b" * 1000)


def damage_file(path: Path, checksum: Path, damage: str) -> None:
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "changed":
        path.write_bytes(b"c" * 1000)
    elif damage == "without checksum":
        checksum.unlink()
    elif damage == "binary checksum":
        checksum.write_bytes(b"\xff" * 64)
    else:
        wrong = path if damage == "folder" else checksum
        wrong.unlink()
        (wrong / "deep").mkdir(parents=True)


@pytest.mark.parametrize(
    "damage",
    ["truncated", "changed", "without checksum", "binary checksum", "folder", "folder for a checksum"],
)
def test_a_broken_file_is_built_again(damage: str) -> None:
    path = cache.derived_file("thing", build)
    damage_file(path, path.with_name("thing.sha256"), damage)
    assert not cache.is_complete(path)
    assert cache.derived_file("thing", build).read_bytes() == b"b" * 1000
    assert cache.is_complete(path)


def test_a_process_that_hangs_while_it_builds_does_not_hold_up_others(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LOCK_TIMEOUT_S", 0.1)
    with cache.locked(own_cache / "thing"), cache.substituted() as remarks:
        path = cache.derived_file("thing", lambda path: path.write_text("mine") and None)
        assert path.read_text() == "mine"
        assert "another process" in remarks[0]
    assert not path.exists()


def test_what_a_process_left_that_was_ended_while_it_built_goes_with_the_next_build(own_cache: Path) -> None:
    """A node that is stopped while TensorRT builds; another process may be building another file beside it."""
    program = """if True:
        import os
        from canet_ros.model import cache
        cache.derived_file("thing", lambda path: path.write_bytes(bytes(1000)) and os._exit(0))"""
    subprocess.run([sys.executable, "-c", program], check=True)
    others = own_cache / "building-other-x"
    others.mkdir()
    assert len(list(own_cache.glob("building-*"))) == 2
    cache.derived_file("thing", lambda path: path.write_text("whole") and None)
    assert list(own_cache.glob("building-*")) == [others]
