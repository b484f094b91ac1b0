# SPDX-License-Identifier: Apache-2.0
"""What every format of a labelling tool needs: reading an export, naming its images, and drawing its shapes."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.model.class_table import UNLABELLED, ClassTable
from canet_ros.training.dataset import LabelledImage

Ids: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = Iterator[tuple[str, Ids]]  # name of the image without its suffix, class ids (H, W)
Folder: TypeAlias = "Path | zipfile.Path"

_UNLABELLED_NAMES = ("background", "ignore", "ignored", "unlabeled", "unlabelled", "void")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts it before the name of an uploaded file
_MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class LabelFormat:
    """How a tool reads pre-labels and how its export is read.

    Attributes:
        file: name of the file or folder with pre-labels, beside the folders ``images`` and ``labels``.
        write: ``write(images, classes, path)`` writes it.
        read: ``read(export, classes)`` yields the labels of each image of an opened export; it raises ValueError for
            an export of another format and for names that are not in the class table.
        instruction: what the user does with the file, after its name.
    """

    file: str
    write: Callable[[Sequence[LabelledImage], ClassTable, Path], None]
    read: Callable[[Folder, ClassTable], Labels]
    instruction: str


@contextmanager
def open_export(path: Path) -> Iterator[Folder]:
    """A tool's export as a folder: a folder, a zip archive, or a single file.

    Raises:
        ValueError: the archive is damaged, or a file in it is larger than 1 GiB.
        FileNotFoundError: ``path`` does not exist.
    """
    if path.is_dir() or not zipfile.is_zipfile(path):
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        yield path
        return
    try:
        with zipfile.ZipFile(path) as archive:
            large = [info.filename for info in archive.infolist() if info.file_size > _MAX_FILE_BYTES]
            if large:
                raise ValueError(f"{path}: {large[0]} has more than 1 GiB: this is not an export of labels")
            yield zipfile.Path(archive)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged: {error}: export it again") from error


def files(folder: Folder, suffix: str) -> list[Folder]:
    """All files with a suffix (``.json``) in the export and its folders; a single file is its own export."""
    if folder.is_file():
        return [folder] if folder.name.lower().endswith(suffix) else []
    found: list[Folder] = []
    for entry in folder.iterdir():
        if entry.is_dir() or entry.name.lower().endswith(suffix):
            found += files(entry, suffix)
    return sorted(found, key=str)


def image_name(address: str) -> str:
    """Name without folders and suffix of an image in an export, from a path or an address.

    ``/data/upload/3/1f2e3d4c-front_001.png`` and ``/data/local-files/?d=images%2Ffront_001.png`` are ``front_001``.
    """
    parts = urlsplit(address)
    path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    return _UPLOAD_PREFIX.sub("", PureWindowsPath(path).stem)


def class_id(name: str, classes: ClassTable) -> int:
    """Id of a class by its name; ``UNLABELLED`` for background, void and ignore.

    Raises:
        ValueError: the class table has no such name.
    """
    if name in classes.names:
        return classes.names.index(name)
    if name.strip("_").lower() in _UNLABELLED_NAMES:
        return UNLABELLED
    raise ValueError(
        f"class {name!r} is not in the class table ({', '.join(classes.names)}): rename it in the labelling tool, or "
        "give the table with --classes"
    )


def unlabelled(height: int, width: int) -> Ids:
    """Labels (height, width) of an image in which nothing is labelled.

    Raises:
        ValueError: a side is not 1 to 65,535 pixels.
    """
    if not (0 < height < 1 << 16 and 0 < width < 1 << 16):
        raise ValueError(f"an image of {width}x{height} pixels: expected sides of 1 to 65,535")
    return np.full((height, width), UNLABELLED, np.uint8)


def fill_polygon(labels: Ids, points: NDArray[np.float64], value: int) -> None:
    """Fill a polygon with corners ``points`` (N, 2), x and y in pixels from the image's corner, in place."""
    shift = 4  # of OpenCV's fixed-point numbers; its integers are pixel centres
    corners = np.round((points.reshape(-1, 2) - 0.5) * (1 << shift)).astype(np.int32)
    cv2.fillPoly(labels, [corners], (value,), shift=shift)


def fill_rectangle(labels: Ids, corners: NDArray[np.float64], value: int) -> None:
    """Fill the upright rectangle between two opposite corners (2, 2), see ``fill_polygon``, in place."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    fill_polygon(labels, np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), value)


def decode_png(data: bytes, name: str, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[np.uint8]:
    """Pixels of a PNG file.

    Raises:
        ValueError: it cannot be decoded.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None or image.dtype != np.uint8:
        raise ValueError(f"{name}: expected a PNG of 8 bits per channel")
    return image.astype(np.uint8, copy=False)
