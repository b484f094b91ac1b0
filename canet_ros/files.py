# SPDX-License-Identifier: Apache-2.0
"""Files are written beside their place and renamed: whole, or not at all, and never without a word."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # OpenCV is imported where pictures are written: others write without it, broken or not
    from canet_ros.opencv import Picture

_CHUNK_BYTES = 2**20


def write_json(path: Path, figures: Any) -> None:
    """Write figures as JSON, for people to read too; raises as ``write_text``."""
    write_text(path, json.dumps(figures, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; folders that are missing are made, and what was there is replaced.

    Raises:
        OSError: it cannot be written; the message names the file and why.
    """
    with atomic_write(path) as new:
        new.write_text(text, encoding="utf-8")


def write_image(path: Path, picture: Picture) -> None:
    """Write a picture in the format of the path's suffix; raises as ``write_text``, and PictureError as ``opencv``."""
    from canet_ros.opencv import PictureError, encode_picture

    try:
        data = encode_picture(picture, path.suffix)
    except PictureError as error:
        raise PictureError(f"cannot write {path}: {error}") from error
    with atomic_write(path) as new:
        new.write_bytes(data)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, with the suffix of ``path``, whose place it takes in the end; raises as ``write_text``.

    Devices and pipes (/dev/stdout) are written to as they are.
    """
    with _naming(path):
        if _is_device(path):
            yield path
            return
        partial = _partial(path)
        try:
            partial.touch()
            mode = partial.stat().st_mode
            yield partial
            if partial.stat().st_mode != mode:  # safetensors leaves files that their owner alone may read
                partial.chmod(mode)
            os.replace(partial, path.resolve())  # of a link, what it points to
        finally:
            partial.unlink(missing_ok=True)


def require_writable(*paths: Path | None, replace: bool = True) -> None:
    """Try now what is written after long work; None is a file that nobody asked for. Raises as ``write_text``.

    Args:
        replace: False refuses files that exist, as ``require_new`` does.
    """
    if not replace:
        require_new(*paths)
    for path in paths:
        if path is not None and not _is_device(path):
            with _naming(path):
                partial = _partial(path)
                partial.touch()
                partial.unlink()


def require_new(*paths: Path | None) -> None:
    """Refuse outputs that exist; None is a file that nobody asked for, and an empty file has nothing to lose.

    Raises:
        FileExistsError: one of them exists; the message names it and says what to do.
    """
    for path in paths:
        if path is None or _is_device(path) or path.is_dir():  # that a file is asked for is said elsewhere
            continue
        if path.is_file() and path.stat().st_size > 0:
            raise FileExistsError(f"{path} exists: give another name, or --force to replace it")


def require_image_format(*paths: Path | None) -> None:
    """Refuse names whose suffix OpenCV does not write, with PictureError."""
    import cv2

    from canet_ros.opencv import PictureError

    for path in paths:
        if path is not None and not cv2.haveImageWriter(f"picture{path.suffix}"):
            raise PictureError(f"{path}: give the picture a name that ends in .png or .jpg")


def _partial(path: Path) -> Path:
    place = path.resolve()
    if place.is_dir():
        raise OSError(errno.EISDIR, "it is a folder")
    place.parent.mkdir(parents=True, exist_ok=True)
    # Several may be open in one folder; a name may be as long as the file system takes.
    return place.with_name(f".partial-{os.getpid()}-{place.stem[-40:]}{place.suffix}")


def _is_device(path: Path) -> bool:
    return path.parts[:2] in (("/", "dev"), ("/", "proc"))


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def sha256(path: Path) -> str:
    """Of a file, hex; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
