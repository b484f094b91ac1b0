# SPDX-License-Identifier: Apache-2.0
"""Files are written atomically and images are read only when complete; errors name the file and the reason."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from canet_ros.files import (
    atomic_write,
    require_writable,
    write_image,
    write_json,
    write_text,
)
from canet_ros.opencv import ImageFileError, read_image

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Limit files to 200 bytes, so that writes fail as on a full disk. Not a fixture: pytest writes files too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_folders_are_created_and_files_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "figures.json"
    write_json(path, {"miou": 0.5})
    write_json(path, {"miou": 0.75})
    assert path.read_text() == '{\n  "miou": 0.75\n}\n'
    write_image(path.with_name("image.png"), IMAGE)
    assert np.array_equal(cv2.imread(str(path.with_name("image.png"))), IMAGE)
    assert len(list(path.parent.iterdir())) == 2
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_full_disk_keeps_the_existing_file(tmp_path: Path) -> None:
    write_text(tmp_path / "kept.txt", "before")
    for name, write in (("kept.txt", write_text), ("kept.png", write_image)):
        content = "x" * 1000 if write is write_text else IMAGE
        error = pytest.raises(OSError, match=rf"^cannot write .*{name}: File too large$")
        with full_disk(), error:
            write(tmp_path / name, content)  # type: ignore[operator]
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "before"


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (
        tmp_path / "file" / "figures.json",
        tmp_path,
        Path("/proc/none/x.json"),
        tmp_path / ("x" * 300),
    ):
        for attempt in (lambda path: write_text(path, "x"), require_writable):
            if attempt is require_writable and path.parts[1] == "proc":
                continue
            with pytest.raises(OSError, match=r"^cannot write ") as caught:
                attempt(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)
    require_writable(tmp_path / "later" / "figures.json", None)
    assert not list((tmp_path / "later").iterdir())


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "x.bin") as new:  # noqa: PT012
        new.write_bytes(b"half")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_symbolic_link_is_preserved(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to("target.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "target.txt").read_text() == "new"


def jpeg_with_thumbnail() -> bytes:
    """A JPEG whose first segment contains a complete JPEG, as cameras write their thumbnails."""
    inner, outer = (cv2.imencode(".jpg", side)[1].tobytes() for side in (IMAGE[:16, :16], IMAGE))
    segment = b"Exif\0\0" + inner
    return outer[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + outer[2:]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.png", b"", "is empty"),
        ("a.png", b"not an image", "is not an image that OpenCV can read"),
        ("a.png", cv2.imencode(".png", IMAGE)[1].tobytes()[:2000], "is truncated"),
        ("a.jpg", cv2.imencode(".jpg", IMAGE)[1].tobytes()[:-2], "is truncated"),
        ("a.jpg", jpeg_with_thumbnail()[: len(jpeg_with_thumbnail()) - 400], "is truncated"),
        ("a.jpg", b"\xff\xd8\xff\xe1\0\0" * 50, "is truncated"),
        # The header claims 60,000 x 60,000 pixels.
        (
            "a.png",
            cv2.imencode(".png", IMAGE)[1].tobytes().replace(b"\0\0\0\x40\0\0\0\x30", b"\0\0\xea\x60" * 2, 1),
            "a.png",
        ),
    ],
)
def test_incomplete_images_are_named(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageFileError, match=words) as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)
    (tmp_path / "whole.jpg").write_bytes(jpeg_with_thumbnail())
    assert read_image(tmp_path / "whole.jpg").shape == IMAGE.shape, "a thumbnail is not the image"
