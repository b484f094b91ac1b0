# SPDX-License-Identifier: Apache-2.0
"""Bags at fsspec URLs (``s3://bucket/drive``): downloaded to a scratch folder, processed there, and uploaded."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from canet_ros.bags.bag import BagError
from canet_ros.bags.metadata import METADATA_FILE
from canet_ros.hints import pip_install

_MARK = "://"


@dataclass(frozen=True)
class Address:
    """A remote file or folder. Every method raises BagError if its file system reports an error."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return PurePosixPath(self.url.partition(_MARK)[2]).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.url.rstrip('/')}/{name}")

    def resolve(self) -> Address:
        return Address(self.url.rstrip("/"))

    absolute = resolve

    def exists(self) -> bool:
        with self._system() as (system, path):
            return bool(system.exists(path))

    def is_complete(self) -> bool:
        """Whether a bag was uploaded completely."""
        return (self if self.suffix == ".mcap" else self / METADATA_FILE).exists()

    def download(self, target: Path) -> None:
        """Copy the file, or the folder's files, to ``target``."""
        with self._system() as (system, path):
            for file in [path] if system.isfile(path) else system.find(path):
                near = target / PurePosixPath(file).relative_to(path)
                near.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(file, str(near))

    def require_replaceable(self, force: bool) -> None:
        """Raise BagError unless the address is free, or holds only a bag to replace or a partial upload of this one."""
        if not self.exists():
            return
        if self.is_complete() and not force:
            raise BagError(f"{self.url} exists: give another name, or --force to replace it")
        with self._system() as (system, path):
            files = [str(PurePosixPath(file).relative_to(path)) for file in system.find(path)]
        ours = re.compile(
            r"\.|metadata\.yaml|"
            + (r"[^/]*\.mcap" if self.is_complete() else rf"{re.escape(self.name)}_\d+\.mcap")
        )
        if others := [file for file in files if not ours.fullmatch(file)]:
            raise BagError(f"{self.url} contains other files, such as {min(others)}: give another name")

    def upload(self, source: Path) -> None:
        """Upload a bag, metadata.yaml last, because it marks the bag as complete."""
        files = (
            sorted(source.iterdir(), key=lambda f: f.name == METADATA_FILE) if source.is_dir() else [source]
        )
        with self._system() as (system, path):
            if system.exists(path):
                system.rm(path, recursive=True)
            system.makedirs(path if source.is_dir() else str(PurePosixPath(path).parent), exist_ok=True)
            for file in files:
                system.put_file(str(file), f"{path}/{file.name}" if source.is_dir() else path)

    @contextlib.contextmanager
    def _system(self) -> Iterator[tuple[Any, str]]:
        """File system and path in it."""
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise BagError(f"{self.url} needs fsspec: {pip_install('fsspec')}") from None
        try:
            yield url_to_fs(self.url)
        except FileNotFoundError:
            raise BagError(f"{self.url} does not exist") from None
        except Exception as error:  # each file system raises its own exceptions
            reason = str(error).strip().partition("\n")[0]
            raise BagError(f"{self.url}: {reason or type(error).__name__}") from error


Location = Path | Address


def parse_location(text: str) -> Location:
    """A path, or an address if the text is a URL."""
    return Address(text) if _MARK in text else Path(text)


def outputs_of(sources: Sequence[Location], out: Location) -> list[Location]:
    """The output of each input: OUT itself, or a bag in OUT with as much of the input's path as tells it apart.

    Raises:
        ValueError: two outputs would have the same name.
    """
    resolved = [source.resolve() for source in sources]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise ValueError(f"{sources[index]} is given twice")
    if len(sources) == 1:
        return [out]
    if out.suffix == ".mcap":
        raise ValueError(f"{out}: several bags become a folder of bags; give a folder")
    parts = [str(path).replace("://", "/").strip("/").split("/") for path in resolved]
    for path_parts in parts:
        for suffix in (".zstd", ".zst", ".mcap", ".db3"):
            path_parts[-1] = path_parts[-1].removesuffix(suffix)
    names = []
    for own in parts:
        depth = 1
        while depth < len(own) and sum(other[-depth:] == own[-depth:] for other in parts) > 1:
            depth += 1
        names.append("_".join(own[-depth:]))
    for index, name in enumerate(names):
        if name in names[:index]:  # drive.mcap and drive.db3
            raise ValueError(f"two inputs are called {name}: segment them one by one")
    return [out / name for name in names]


@contextlib.contextmanager
def local_copies(source: Location, out: Location, force: bool) -> Iterator[tuple[Path, Path]]:
    """Local paths for both: a remote source is downloaded first, and a remote OUT uploaded at the end.

    The scratch folder lies beside OUT, or in TMPDIR if OUT is remote. It is kept if the upload of a complete bag fails.

    Raises:
        BagError: OUT exists, or an address cannot be read or written.
    """
    if isinstance(source, Path) and isinstance(out, Path):
        yield source, out
        return
    if isinstance(out, Address):
        out.require_replaceable(force)
        folder = Path(tempfile.mkdtemp(prefix="canet-"))
    else:
        folder = out.with_name(f"{out.name}.source")
    made = folder / "out" / out.name if isinstance(out, Address) else out
    try:
        if isinstance(source, Address):
            source.download(folder / "in" / source.name)
            source = folder / "in" / source.name
        yield source, made
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if isinstance(out, Address):
        try:
            out.upload(made)
        except BagError as error:
            raise BagError(f"{error}; the local copy is {made}") from error
    shutil.rmtree(folder, ignore_errors=True)
