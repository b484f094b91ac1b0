# SPDX-License-Identifier: Apache-2.0
"""Files derived from a model: built once, whole or not at all, whoever asks first."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from canet_ros.inference import progress


def cache_folder() -> Path:
    """$CANET_ROS_CACHE, or $XDG_CACHE_HOME/canet_ros, or ~/.cache/canet_ros."""
    if own := os.environ.get("CANET_ROS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "canet_ros"


def derived_file(name: str, build: Callable[[Path], None]) -> Path:
    """The file ``name`` of the cache; ``build`` writes it to the path it is given if it is missing or broken.

    Processes that ask at the same time wait for the one that builds. A file counts only with its checksum beside it,
    which is written last: what a crash or a full disk left behind is built again.

    Raises:
        OSError: the cache cannot be written; set CANET_ROS_CACHE to a folder that can.
    """
    path = cache_folder() / name
    if not is_complete(path):
        with locked(path):
            if not is_complete(path):  # another process may have built it meanwhile
                _write(path, build)
    return path


def replace_derived_file(name: str, build: Callable[[Path], None]) -> Path:
    """As ``derived_file``, and built anew in any case."""
    path = cache_folder() / name
    with locked(path):
        _write(path, build)
    return path


def is_complete(path: Path) -> bool:
    """Whether a derived file is there and is what was written."""
    try:
        return _checksum_file(path).read_text(encoding="ascii") == _sha256(path)
    except FileNotFoundError:
        return False


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from building the same file or folder of the cache meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, also by a crash
        yield


def _write(path: Path, build: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as folder:
        new = Path(folder) / path.name
        with progress.doing(progress.BUILDING):
            build(new)
        checksum = Path(folder) / "checksum"
        checksum.write_text(_sha256(new), encoding="ascii")
        _move(new, path)
        _move(checksum, _checksum_file(path))


def checksum(path: Path) -> str:
    """SHA-256 of a complete derived file, hex."""
    return _checksum_file(path).read_text(encoding="ascii")


def _move(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
