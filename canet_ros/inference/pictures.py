# SPDX-License-Identifier: Apache-2.0
"""Pictures from files: one picture, a folder of them, or a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.opencv import PictureError, read_picture

PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))


@dataclass(frozen=True)
class Picture:
    """A picture (H, W, 3) BGR uint8 and its name: the file's, or the video's with the number of the frame."""

    name: str
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """What an input holds.

    Attributes:
        count: how many pictures, as far as the file says; for a progress bar.
        rate_hz: frames per second of a video; 0 where there is no rate.
        pictures: read one by one.
    """

    count: int
    rate_hz: float
    pictures: Iterator[Picture]


def open_pictures(path: Path, warn: Callable[[str], None]) -> Pictures:
    """Pictures of a file, of a folder (by name) or of a video.

    Args:
        path: file or folder.
        warn: told about each picture that is skipped because it cannot be read.

    Raises:
        ValueError: there is nothing of the kind at the path.
    """
    if not path.exists():
        raise ValueError(f"input {path} does not exist")
    if path.is_file() and path.suffix.lower() not in PICTURE_SUFFIXES:
        return _open_video(path)
    files = [path] if path.is_file() else sorted(path.iterdir())
    files = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    if not files:
        raise ValueError(f"input {path} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return Pictures(len(files), 0.0, _read_files(files, warn))


def _read_files(files: list[Path], warn: Callable[[str], None]) -> Iterator[Picture]:
    for file in files:
        try:
            yield Picture(file.stem, read_picture(file))
        except (PictureError, OSError) as error:
            warn(f"{error}: skipped")


def _open_video(path: Path) -> Pictures:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f"input {path} is no picture or video that OpenCV can read")

    def frames() -> Iterator[Picture]:
        index = 0
        while True:
            there, image = video.read()
            if not there:
                return
            yield Picture(f"{path.stem}_{index:06d}", np.asarray(image, np.uint8))
            index += 1

    count = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    return Pictures(count, float(video.get(cv2.CAP_PROP_FPS)), frames())
