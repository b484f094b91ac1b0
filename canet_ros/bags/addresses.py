# SPDX-License-Identifier: Apache-2.0
"""Bags at addresses that fsspec knows (``s3://bucket/drive``): copied here whole, and brought back whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from canet_ros.bags.bag import BagError
from canet_ros.bags.output import partial_of, writing_to
from canet_ros.bags.reading import METADATA_FILE
from canet_ros.hints import pip_install

_MARK = "://"


@dataclass(frozen=True)
class Address:
    """A file or folder somewhere else; every method raises BagError where that place answers with an error."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return PurePosixPath(self.url.partition(_MARK)[2]).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Address:
        return Address(self.url.rstrip("/").rpartition("/")[0])

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.url.rstrip('/')}/{name}")

    def resolve(self) -> Address:
        return Address(self.url.rstrip("/"))

    absolute = resolve

    def exists(self) -> bool:
        with self._asked() as (system, path):
            return bool(system.exists(path))

    def is_whole(self) -> bool:
        """Whether there is a bag that was brought there to its end."""
        return (self if self.suffix == ".mcap" else self / METADATA_FILE).exists()

    def fetch(self, target: Path) -> None:
        """Copy the file, or the folder's files, to ``target``, with their times; what is there already is kept."""
        with self._asked() as (system, path):
            files = [path] if system.isfile(path) else system.find(path)
            root = PurePosixPath(path)
            for file in files:
                near = target / PurePosixPath(file).relative_to(root)
                time_ns = _changed_ns(system, file)
                if near.is_file() and _size_and_time(near) == (system.size(file), time_ns):
                    continue
                near.parent.mkdir(parents=True, exist_ok=True)
                beside = near.with_name(f".partial-{near.name}")
                system.get_file(file, str(beside))
                os.utime(beside, ns=(time_ns, time_ns))
                beside.replace(near)

    def require_free(self, replace: bool, names: Sequence[str] = ()) -> None:
        """Refuse what a bag would take the place of, unless it is a bag to be replaced, or a part of this one."""
        if not self.exists() or (replace and self.is_whole()):
            return
        if self.is_whole():
            raise BagError(f"{self.url} exists: give another name, or --force to replace it")
        with self._asked() as (system, path):
            others = {PurePosixPath(file).name for file in system.find(path)} - {METADATA_FILE, *names}
        if others:
            raise BagError(f"{self.url} holds something else, as {min(others)}: give another name")

    def bring(self, source: Path, replace: bool) -> None:
        """Copy a bag there under another name, then move it; metadata.yaml, by which it is known, comes last."""
        files = (
            [source] if source.is_file() else sorted(source.iterdir(), key=lambda f: f.name == METADATA_FILE)
        )
        self.require_free(replace, [file.name for file in files])
        with self._asked() as (system, path):
            beside = f"{path}.partial"
            for old in (beside, path):
                if system.exists(old):
                    system.rm(old, recursive=True)
            moves = [(f"{beside}/{file.name}", f"{path}/{file.name}") for file in files]
            if source.is_file():
                moves = [(beside, path)]
            for file, (copy, target) in zip(files, moves):
                for name in (copy, target):
                    system.makedirs(str(PurePosixPath(name).parent), exist_ok=True)
                system.put_file(str(file), copy)
            for copy, target in moves:
                system.mv(copy, target)
            if system.exists(beside):  # object stores have no folders
                system.rm(beside, recursive=True)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it."""
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise BagError(f"{self.url} needs fsspec: {pip_install('fsspec')}") from None
        try:
            yield url_to_fs(self.url)
        except BagError:
            raise
        except FileNotFoundError:
            raise BagError(f"{self.url} does not exist") from None
        except Exception as error:  # each file system has exceptions of its own
            reason = str(error).strip().partition("\n")[0]
            raise BagError(f"{self.url}: {reason or type(error).__name__}") from error


def place(text: str) -> Path | Address:
    """A path, or an address if it is written as one."""
    return Address(text) if _MARK in text else Path(text)


@contextlib.contextmanager
def near(
    source: Path | Address, out: Path | Address, resume: bool, force: bool
) -> Iterator[tuple[Path, Path]]:
    """Paths on this machine for both: what is elsewhere is copied here first, and brought there in the end.

    What was copied lies beside OUT, or in a folder of TMPDIR where OUT is elsewhere; it goes when OUT is whole, or when
    nothing is left to go on with. With ``resume`` the second path may be there already.

    Raises:
        BagError: OUT exists, or a place cannot be read or written.
    """
    if isinstance(source, Path) and isinstance(out, Path):
        yield source, out
        return
    work = None
    near_out = out
    if isinstance(out, Address):
        work = _scratch(out)
        near_out = work / out.name
        out.require_free(force, (near_out.name, f"{near_out.name}_0.mcap"))
        if not resume:
            _remove(near_out)
    assert isinstance(near_out, Path)
    copied = near_out.with_name(f"{near_out.name}.source")
    try:
        if isinstance(source, Address):
            source.fetch(copied / source.name)
        yield (copied / source.name if isinstance(source, Address) else source), near_out
        if isinstance(out, Address):
            out.bring(near_out, force)
            _remove(near_out)
    finally:
        if not partial_of(near_out).exists():
            _remove(copied)
            if work is not None and not near_out.exists():
                _remove(work)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _scratch(out: Address) -> Path:
    """A folder of TMPDIR for what becomes ``out``, the same in each run; nobody else's."""
    folder = Path(tempfile.gettempdir()) / f"canet_ros-{os.getuid()}"
    with writing_to(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise BagError(f"{folder} belongs to somebody else: set TMPDIR")
        work = folder / hashlib.sha256(out.resolve().url.encode()).hexdigest()[:16]
        work.mkdir(exist_ok=True)
    return work


def _changed_ns(system: Any, file: str) -> int:
    try:
        return int(system.modified(file).timestamp() * 10**6) * 1000
    except (NotImplementedError, KeyError, AttributeError):  # it does not say
        return 0


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
