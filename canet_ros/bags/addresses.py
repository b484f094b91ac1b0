# SPDX-License-Identifier: Apache-2.0
"""Bags at fsspec URLs (``s3://bucket/drive``): downloaded to a scratch folder, processed there, and uploaded."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from canet_ros.bags.bag import BagError
from canet_ros.bags.metadata import METADATA_FILE
from canet_ros.hints import pip_install

Location = Path | str  # a path of this machine, or a URL


def exists(location: Location, file: str = "") -> bool:
    """Whether there is something, or a folder with this file; raises BagError as ``local_copies``."""
    if isinstance(location, Path):
        return (location / file).exists()
    with _file_system(location) as (system, path):
        return bool(system.exists(f"{path}/{file}".rstrip("/")))


@contextlib.contextmanager
def local_copies(source: Location, out: Location, force: bool) -> Iterator[tuple[Path, Path]]:
    """Local paths for both: a remote source is downloaded to TMPDIR first, and a remote OUT uploaded at the end.

    Raises:
        BagError: OUT exists, or an address cannot be read or written; a complete local copy of OUT is kept then.
    """
    folder = Path(tempfile.mkdtemp(prefix="canet-"))
    near = source if isinstance(source, Path) else folder / "in" / PurePosixPath(source).name
    made = out if isinstance(out, Path) else folder / "out" / PurePosixPath(out).name
    try:
        if isinstance(out, str):
            with _file_system(out) as (system, path):
                files = [str(PurePosixPath(file).relative_to(path)) for file in system.find(path)]
            ours = r"\.|metadata\.yaml|[^/]*\.mcap" if force else rf"{re.escape(made.name)}_\d+\.mcap"
            if others := [file for file in files if not re.fullmatch(ours, file)]:
                there = f"contains other files, such as {min(others)}" if force else "exists"
                hint = "" if force else ", or --force to replace it"
                raise BagError(f"{out} {there}: give another name{hint}")
        if isinstance(source, str):
            near.parent.mkdir()
            with _file_system(source) as (system, path):
                system.get(path, str(near), recursive=not system.isfile(path))
        yield near, made
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if isinstance(out, str):
        with _file_system(out, f"; the local copy is {made}") as (system, path):
            if system.exists(path):
                system.rm(path, recursive=True)
            parts = [*sorted(made.glob("*.mcap")), made / METADATA_FILE] if made.is_dir() else [made]
            for file in parts:  # metadata.yaml is last, because it marks the bag as complete
                there = path if made.is_file() else f"{path}/{file.name}"
                system.makedirs(str(PurePosixPath(there).parent), exist_ok=True)
                system.put_file(str(file), there)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _file_system(url: str, hint: str = "") -> Iterator[tuple[Any, str]]:
    """File system and path in it; ``hint`` ends the message of an error."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise BagError(f"{url} needs fsspec: {pip_install('fsspec')}") from None
    try:
        yield url_to_fs(url)
    except Exception as error:  # each file system raises its own exceptions
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BagError(f"{url}: {reason}{hint}") from error
