# SPDX-License-Identifier: Apache-2.0
"""Images from files: one image, a folder of them, or a video."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.image_header import exif_orientation
from canet_ros.opencv import ImageFileError, read_image

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))


@dataclass(frozen=True)
class NamedImage:
    """An image (H, W, 3) BGR uint8 and its name: the file's, or the video's with the number of the frame."""

    name: str
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class ImageSource:
    """What an input holds.

    Attributes:
        count: number of images according to the file; for a progress bar.
        rate_hz: frames per second of a video; 0: unknown.
        images: read one by one.
    """

    count: int
    rate_hz: float
    images: Iterator[NamedImage]


def open_images(path: Path, warn: Callable[[str], None], name: str = "") -> ImageSource:
    """Images of a file, of a folder (by name) or of a video.

    Args:
        path: file or folder.
        warn: called for each image that cannot be read, which is skipped, and for a video that ends early.
        name: of a file's images, instead of its own.

    Raises:
        ValueError: the path has no images.
    """
    files = find_files(path)
    if is_video(files[0]):
        return _open_video(path, warn, name or path.stem)
    return ImageSource(len(files), 0.0, _read_files(files, warn, name))


def find_files(path: Path) -> list[Path]:
    """The file itself, or the images in a folder by name; raises as ``open_images``."""
    if not path.exists() and not path.is_symlink():  # a dangling link is reported when it is read
        raise ValueError(f"input {path} does not exist")
    if not path.is_dir():
        return [path]
    files = [
        file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir()
    ]
    if not files:
        raise ValueError(f"input {path} contains no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


def differences_from_file(files: Iterable[Path]) -> list[str]:
    """Sentences on images that are read otherwise than they are stored: turned by EXIF."""
    turned = []
    for file in files:
        suffix = file.suffix.lower()
        if suffix in (".png", ".tif", ".tiff", ".webp", ".jpg", ".jpeg"):
            with contextlib.suppress(OSError), file.open("rb") as opened:  # reported when it is read
                data = opened.read(2**17 if suffix.startswith(".j") else -1)
                turned += [str(file)] * (exif_orientation(data) != 1)
    if not turned:
        return []
    return [
        f"{in_short(turned)}: images with an EXIF orientation ({len(turned)}) are turned by it; masks and labels "
        "belong to the turned image, not to the pixels as they are stored"
    ]


def in_short(names: Sequence[str], most: int = 3) -> str:
    """The first of them, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def is_video(file: Path) -> bool:
    """By its suffix: any file that is not an image is taken as a video."""
    return file.suffix.lower() not in IMAGE_SUFFIXES


def distinct_names(files: Sequence[Path]) -> dict[Path, str]:
    """Distinct names for the outputs of files; a file given twice is listed once.

    The file's name without suffix (``1``); where two are the same, all paths below the common folder, without suffix
    (``front/1``) or with it (``front/1.png``). A video's frames are ``<name>_000000`` and so on.

    Raises:
        ValueError: a file has the name of a video's frame.
    """
    by_place = {file.resolve(): file for file in files}
    folder = os.path.commonpath([place.parent for place in by_place])
    below = {file: place.relative_to(folder) for place, file in by_place.items()}
    for name_of in (lambda path: path.stem, lambda path: str(path.with_suffix("")), str):
        names = {file: name_of(path) for file, path in below.items()}
        if len(set(names.values())) == len(names):
            break
    videos = {name for file, name in names.items() if is_video(file)}
    for file, name in names.items():
        if re.fullmatch(r".*_\d{6}", name) and name[:-7] in videos:
            raise ValueError(
                f"input {file} has the name of a frame of the video {name[:-7]}: give it another one"
            )
    return names


def _read_files(files: list[Path], warn: Callable[[str], None], name: str) -> Iterator[NamedImage]:
    for file in files:
        try:
            yield NamedImage(name or file.stem, read_image(file))
        except (ImageFileError, OSError) as error:
            warn(str(error))


def _open_video(path: Path, warn: Callable[[str], None], name: str) -> ImageSource:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f"input {path} is not an image or video that OpenCV can read")
    count = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames() -> Iterator[NamedImage]:
        index = 0
        while (read := video.read())[0]:
            yield NamedImage(f"{name}_{index:06d}", np.asarray(read[1], np.uint8))
            index += 1
        # Some containers only estimate the number of frames.
        if index < max(1, 0.98 * count):
            warn(f"{path} ends after {index} frames of {count}")

    return ImageSource(count, float(video.get(cv2.CAP_PROP_FPS)), frames())
