# SPDX-License-Identifier: Apache-2.0
"""Atomic writes of text, JSON and images, and checks before long work that a file can be written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # only images need OpenCV; text is written without it
    from canet_ros.opencv import Pixels

_CHUNK_BYTES = 2**20


def write_json(path: Path, figures: Any) -> None:
    """Write indented JSON; raises as ``write_text``."""
    write_text(path, json.dumps(figures, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text. Missing folders are created; an existing file is replaced.

    Raises:
        OSError: the file cannot be written; the message names it and gives the reason.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_image(path: Path, image: Pixels) -> None:
    """Write an image in the format of the path's suffix.

    Raises:
        OSError: as ``write_text``.
        ImageFileError: OpenCV cannot encode the image in this format.
    """
    from canet_ros.opencv import ImageFileError, encode_image

    try:
        data = encode_image(image, path.suffix)
    except ImageFileError as error:
        raise ImageFileError(f"cannot write {path}: {error}") from error
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file with the suffix of ``path``; rename it to ``path`` at the end of the block.

    After an exception the temporary file is deleted and ``path`` is unchanged. Devices and pipes (/dev/stdout) are
    written directly. Raises as ``write_text``.
    """
    with _naming(path):
        if _is_device(path):
            yield path
            return
        temporary = _temporary_file(path)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            if temporary.stat().st_mode != mode:  # safetensors makes its files readable by the owner only
                temporary.chmod(mode)
            os.replace(temporary, path.resolve())  # a symbolic link stays; its target is replaced
        finally:
            temporary.unlink(missing_ok=True)


def require_writable(*paths: Path | None, replace: bool = True) -> None:
    """Check before long work that these files can be written; None is skipped. Raises as ``write_text``.

    Args:
        replace: False refuses files that exist, as ``require_new`` does.
    """
    if not replace:
        require_new(*paths)
    for path in paths:
        if path is not None and not _is_device(path):
            with _naming(path):
                temporary = _temporary_file(path)
                temporary.touch()
                temporary.unlink()


def require_new(*paths: Path | None) -> None:
    """Refuse outputs that exist and are not empty; None is skipped.

    Raises:
        FileExistsError: one of them exists; the message names it and says what to do.
    """
    for path in paths:
        if path is None or _is_device(path) or path.is_dir():  # a folder is refused where the file is written
            continue
        if path.is_file() and path.stat().st_size > 0:
            raise FileExistsError(f"{path} exists: give another name, or --force to replace it")


def require_image_format(*paths: Path | None) -> None:
    """Raise ImageFileError for a path whose suffix OpenCV cannot write; None is skipped."""
    import cv2

    from canet_ros.opencv import ImageFileError

    for path in paths:
        if path is not None and not cv2.haveImageWriter(f"image{path.suffix}"):
            raise ImageFileError(f"{path}: the name of an image must end in .png or .jpg")


def _temporary_file(path: Path) -> Path:
    target = path.resolve()
    if target.is_dir():
        raise OSError(errno.EISDIR, "it is a folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The stem keeps names distinct within a folder; cut, because the target's name may be as long as is allowed.
    return target.with_name(f".partial-{os.getpid()}-{target.stem[-40:]}{target.suffix}")


def _is_device(path: Path) -> bool:
    return path.parts[:2] in (("/", "dev"), ("/", "proc"))


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
