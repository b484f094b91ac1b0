# SPDX-License-Identifier: Apache-2.0
"""Cache of files derived from a model: built once across processes, and written atomically."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from canet_ros import activity
from canet_ros.files import sha256

# Another process may be building; TensorRT takes minutes on a Jetson. One that hangs must not hold up all others.
LOCK_TIMEOUT_S = 1800.0
_LOCK_POLL_S = 0.05


def cache_folder() -> Path:
    """$CANET_ROS_CACHE, or $XDG_CACHE_HOME/canet_ros, or ~/.cache/canet_ros.

    Raises:
        OSError: none of them is set and there is no home folder.
    """
    if own := os.environ.get("CANET_ROS_CACHE"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "canet_ros"
    except RuntimeError:  # a container's user without an entry in passwd
        raise OSError("the home folder does not exist; set CANET_ROS_CACHE to a writable folder") from None


# Remarks about a cache that cannot be written, and what makes the temporary folder that replaces it.
_substitute: ContextVar[tuple[list[str], Callable[[], Path]] | None] = ContextVar("substitute", default=None)


@contextlib.contextmanager
def substituted() -> Iterator[list[str]]:
    """Fall back to a temporary folder, removed at the end, while the cache cannot be written.

    Yields:
        Remarks that name what could not be cached and why; filled as it happens.
    """
    remarks: list[str] = []
    with contextlib.ExitStack() as stack:

        @functools.cache
        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="canet_ros-")))

        token = _substitute.set((remarks, folder))
        try:
            yield remarks
        finally:
            _substitute.reset(token)


def derived_file(name: str, build: Callable[[Path], None], anew: bool = False) -> Path:
    """The file ``name`` of the cache; ``build`` writes it to the path it is given if it is missing or broken.

    Concurrent processes wait for the one that builds. A file is valid only with its checksum file, which is written
    last: what a crash or a full disk leaves behind is built again.

    Args:
        anew: always build it, and only in the cache.

    Raises:
        OSError: the cache cannot be written, and ``substituted`` is not in force or finds no place either.
    """
    try:
        return _file_in(cache_folder(), name, build, anew)
    except OSError as error:
        if anew or (substitute := _substitute.get()) is None:
            raise
        remarks, folder = substitute
        try:
            path = _file_in(folder(), name, build)
        except OSError:
            raise error from None
        where = error.filename or os.environ.get("CANET_ROS_CACHE") or "the cache"
        remark = (
            f"not cached for the next start: cannot write {where} ({error.strerror or error}); "
            "set CANET_ROS_CACHE to a writable folder"
        )
        if remark not in remarks:
            remarks.append(remark)
        return path


def _file_in(folder: Path, name: str, build: Callable[[Path], None], anew: bool = False) -> Path:
    path = folder / name
    if anew or not is_complete(path):
        with locked(path):
            if anew or not is_complete(path):  # another process may have built it meanwhile
                _write(path, build)
    return path


def forget_derived_file(path: Path) -> None:
    """Let the next ``derived_file`` build it again, if the cache can be written."""
    with contextlib.suppress(OSError):
        _checksum_file(path).unlink()


def derived_file_there(name: str) -> Path | None:
    """The file ``name`` of the cache, if it exists and is valid."""
    with contextlib.suppress(OSError):
        if is_complete(path := cache_folder() / name):
            return path
    return None


def is_complete(path: Path) -> bool:
    """Whether a derived file exists and matches its checksum."""
    try:
        return checksum(path) == sha256(path)
    except (OSError, ValueError):  # missing, a folder, unreadable, or not ASCII
        return False


def checksum(path: Path) -> str:
    """SHA-256 of a complete derived file, hex."""
    return _checksum_file(path).read_text(encoding="ascii")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from building the same file of the cache meanwhile.

    Raises:
        OSError: the lock file cannot be created, or another process has held it for ``LOCK_TIMEOUT_S``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        deadline_s = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                # Released when the file closes, also by a crash.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise TimeoutError(
                        f"another process has been building {path} for {LOCK_TIMEOUT_S / 60:.0f} minutes"
                    ) from None
                time.sleep(_LOCK_POLL_S)
        yield


def _write(path: Path, build: Callable[[Path], None]) -> None:
    prefix = f"building-{path.name}-"
    # Leftovers of killed processes; the builder of this file holds its lock. tempfile adds eight characters.
    for left in path.parent.glob(f"{glob.escape(prefix)}????????"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as folder:
        new = Path(folder) / path.name
        with activity.doing(activity.BUILDING):
            build(new)
        checksum = Path(folder) / "checksum"
        checksum.write_text(sha256(new), encoding="ascii")
        for source, target in ((new, path), (checksum, _checksum_file(path))):
            with source.open("rb") as file:
                os.fsync(file.fileno())
            if target.is_dir():  # the cache owns this path
                shutil.rmtree(target)
            os.replace(source, target)


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
