# SPDX-License-Identifier: Apache-2.0
"""Labelled images in CamVid's layout, or in Cityscapes' own.

``<split>/images/NAME.png`` is the image, ``<split>/labels/NAME.png`` its 8-bit class ids. Ids outside of the class
table are ignored in training and in all metrics. Of Cityscapes, ``leftImg8bit/<split>/CITY/NAME_leftImg8bit.png`` and
``gtFine/<split>/CITY/NAME_gtFine_labelIds.png``, whose label ids are read as the 19 train ids.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.model.class_table import ClassTable, load_class_table
from canet_ros.opencv import read_image
from canet_ros.pipeline.image_files import IMAGE_SUFFIXES, differences_from_file, in_short

IGNORED = 255

_CITYSCAPES_IMAGE, _CITYSCAPES_LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"
_TRAIN_IDS = np.full(256, IGNORED, np.uint8)  # by Cityscapes' label id
_TRAIN_IDS[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]] = range(19)


@dataclass(frozen=True)
class LabelledImage:
    """Paths of an image and its labels."""

    image: Path
    label: Path

    @property
    def name(self) -> str:
        return self.image.stem

    @property
    def of_cityscapes(self) -> bool:
        return self.label.name.endswith(_CITYSCAPES_LABEL)

    def read(self, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) BGR uint8 and labels (H, W) uint8; ids of ``classes`` and above become ``IGNORED``.

        Raises:
            ValueError: a file cannot be decoded, or the sizes differ.
        """
        image, label = read_image(self.image), self.read_ids()
        if label.shape != image.shape[:2]:
            raise ValueError(
                f"{self.label} is {label.shape}, its image {image.shape[:2]} after any EXIF orientation: "
                "sizes must agree"
            )
        return image, np.where(label < classes, label, IGNORED).astype(np.uint8)

    def read_ids(self) -> NDArray[np.uint8]:
        """Ids (H, W) uint8 as stored, of Cityscapes the train ids; including those outside of the class table.

        Raises as ``read``.
        """
        with self.label.open("rb") as file:
            header = file.read(26)
        kind = ""
        if header[:4] != b"\x89PNG":
            kind = "another kind of file"
        elif len(header) == 26:
            # OpenCV turns colours into grey, and scales other depths to 0..255.
            kind = _PNG_KINDS.get(header[25]) or (f"{header[24]} bits" if header[24] != 8 else "")
        if header and kind:
            raise ValueError(
                f"{self.label}: got {kind}: write each pixel's class id into an 8-bit grey PNG with one channel"
            )
        label = read_image(self.label, cv2.IMREAD_UNCHANGED)
        return _TRAIN_IDS[label] if self.of_cityscapes else label


# PNG colour types other than one grey channel.
_PNG_KINDS = {2: "RGB colours", 3: "palette indices", 4: "grey with alpha", 6: "RGB colours"}


def count_ids(
    images: Sequence[LabelledImage],
    classes: ClassTable,
    warn: Callable[[str], None],
    check_images: bool = False,
) -> NDArray[np.int64]:
    """Count the pixels of each id, (256,), including ids outside of the class table.

    Args:
        warn: called with ids outside of the table, and with label images that have no id of it.
        check_images: also read every image, to find one that is broken or of another size before the training.

    Raises:
        ValueError: no pixel has an id of the table, the table is not that of the images' layout, or as
            ``LabelledImage.read``.
    """
    if any(image.of_cityscapes for image in images) and classes.names != load_class_table("cityscapes").names:
        raise ValueError(
            f"{images[0].image.parent}: images in Cityscapes' layout have its 19 classes, not {len(classes)} others: "
            "give --classes cityscapes, or a model with these classes"
        )
    counts = np.zeros(IGNORED + 1, np.int64)
    unlabelled = []
    for image in images:
        if check_images:
            image.read(len(classes))
        image_counts = np.bincount(image.read_ids().ravel(), minlength=IGNORED + 1)
        if not image_counts[: len(classes)].any():
            unlabelled.append(str(image.label))
        counts += image_counts
    folders = in_short(list(dict.fromkeys(str(image.label.parent) for image in images)))
    table = f"the {len(classes)} classes (0 to {len(classes) - 1})"
    if not counts[: len(classes)].any():
        raise ValueError(
            f"{folders}: no pixel of the {len(images)} label images has an id of {table}; they contain "
            f"{_shares(counts, 0)}: write each pixel's class id"
        )
    if counts[len(classes) : IGNORED].any():
        warn(f"{folders}: ignoring ids outside of the class table: {_shares(counts, len(classes))}")
    if unlabelled:
        warn(
            f"{in_short(unlabelled)}: no pixel has an id of {table}; used neither for training nor for metrics"
        )
    return counts


def warn_about_missing_classes(
    counts: NDArray[np.int64], classes: ClassTable, folder: Path, warn: Callable[[str], None]
) -> None:
    """Warn about classes without a pixel; ``counts`` are those of ``count_ids`` for the labels in ``folder``."""
    missing = [f"{name} ({i})" for i, name in enumerate(classes.names) if not counts[i]]
    if missing:
        ignored = _shares(counts, len(classes))
        warn(
            f"{folder}: no label has a pixel of the class{'es' * (len(missing) > 1)} {in_short(missing, 20)}"
            + (f"; ignored ids: {ignored}" if ignored else "")
        )


def _shares(counts: NDArray[np.int64], first: int) -> str:
    ids = [i for i in np.flatnonzero(counts) if i >= first]
    return in_short([f"{i} ({counts[i] / counts.sum():.1%})" for i in ids], 6)


def to_stderr(text: str) -> None:
    """Print one line to stderr."""
    print(text, file=sys.stderr)


def find_labelled_images(split: Path, warn: Callable[[str], None] = to_stderr) -> list[LabelledImage]:
    """All labelled images of a split, sorted by name.

    Args:
        warn: called with files that are not used.

    Raises:
        ValueError: the folder has another layout, a label is missing or belongs to two images, or there is no image.
    """
    if not (split / "images").is_dir() or not (split / "labels").is_dir():
        raise ValueError(f"{split} must contain the folders images/ and labels/")
    files = sorted(file for file in (split / "images").iterdir() if not file.name.startswith("."))
    paths = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    _warn_about_unused(split, files, paths, warn)
    images = [LabelledImage(path, split / "labels" / f"{path.stem}.png") for path in paths]
    _check(images, split / "images")
    for sentence in differences_from_file(paths):
        warn(sentence)
    return images


def find_split(data: Path, split: str, warn: Callable[[str], None] = to_stderr) -> list[LabelledImage]:
    """``find_labelled_images`` of ``data/split``; without a folder ``val``, a part of ``train`` is held out as val.

    A folder with ``leftImg8bit/`` is in Cityscapes' layout.
    Held out is the last fifth of each recording: neighbouring images resemble each other, and a random choice would
    overestimate accuracy. Images of one recording have names that differ in the number at their end.

    Raises:
        ValueError: as ``find_labelled_images``, or ``train`` has a single image.
    """
    if (data / "leftImg8bit").is_dir():
        return _find_cityscapes(data, split)
    if split not in ("train", "val") or (data / "val").is_dir() or not (data / "train").is_dir():
        return find_labelled_images(data / split, warn)
    images = find_labelled_images(data / "train", ignore_warning if split == "val" else warn)
    recordings: dict[str, list[str]] = {}
    for image in images:
        recordings.setdefault(image.name.rstrip("0123456789"), []).append(image.name)
    held_out = {name for names in recordings.values() for name in names[len(names) - len(names) // 5 :]}
    if not held_out:  # short recordings, or images that are not a sequence
        held_out = {image.name for image in images[-max(1, len(images) // 5) :]}
    if len(held_out) == len(images):
        raise ValueError(f"{data / 'train'} has a single image: label more, or add the folder {data / 'val'}")
    if split == "val":
        warn(
            f"{data / 'val'} does not exist: val is the last fifth of each recording in train, "
            f"{len(held_out)} of {len(images)} images ({in_short(sorted(held_out))})"
        )
    return [image for image in images if (image.name in held_out) == (split == "val")]


def of_drives(images: Sequence[LabelledImage], prefixes: Sequence[str]) -> list[LabelledImage]:
    """The images whose names start with one of the prefixes; raises ValueError for a prefix that no name has."""
    for prefix in prefixes:
        if not any(image.name.startswith(prefix) for image in images):
            raise ValueError(f"there is no labelled image whose name starts with {prefix}")
    return [image for image in images if image.name.startswith(tuple(prefixes))]


def _find_cityscapes(data: Path, split: str) -> list[LabelledImage]:
    folder, labels = data / "leftImg8bit" / split, data / "gtFine" / split
    images = []
    for image in sorted(folder.glob(f"*/*{_CITYSCAPES_IMAGE}")):
        name = image.name.removesuffix(_CITYSCAPES_IMAGE) + _CITYSCAPES_LABEL
        images.append(LabelledImage(image, labels / image.parent.name / name))
    _check(images, folder)
    return images


def _check(images: Sequence[LabelledImage], folder: Path) -> None:
    if not images:
        raise ValueError(f"{folder} contains no image")
    for before, image in zip([None, *images], images):
        if not image.label.is_file():
            raise ValueError(f"{image.label} is missing: every image needs labels")
        if before and before.label == image.label:  # equal stems are neighbours, because the files are sorted
            raise ValueError(
                f"{before.image} and {image.image} have the same label file, {image.label}: keep one of them"
            )


def ignore_warning(text: str) -> None:
    """Drop a warning that another call or another process prints."""


def _warn_about_unused(
    split: Path, files: Sequence[Path], images: Sequence[Path], warn: Callable[[str], None]
) -> None:
    stems = {image.stem for image in images}
    others = [file.name for file in files if file.suffix.lower() not in IMAGE_SUFFIXES]
    if others:
        warn(f"{split}/images: ignoring files without the suffix of an image: {in_short(others)}")
    unmatched = sorted(label.name for label in (split / "labels").glob("*.png") if label.stem not in stems)
    if unmatched:
        warn(f"{split}/labels: ignoring labels without an image in images/: {in_short(unmatched)}")


@dataclass(frozen=True)
class ExtraData:
    """A folder of further labelled images, and how many of them an epoch draws per training image.

    Raises:
        ValueError: the folder is empty text, or the share is not above 0.
    """

    folder: str
    share: float = 0.3

    def __post_init__(self) -> None:
        if not self.folder or not 0 < self.share < math.inf:
            raise ValueError(
                f"extra_data {str(self)!r}: expected FOLDER or FOLDER:SHARE, for example streets:0.5"
            )

    def __str__(self) -> str:
        return f"{self.folder}:{self.share:g}"


def parse_extra_data(text: str) -> ExtraData:
    """``"FOLDER"`` or ``"FOLDER:SHARE"``; an existing folder named ``text`` takes precedence.

    Raises:
        ValueError: as ``ExtraData``.
    """
    folder, colon, share = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return ExtraData(text)
    try:
        number = float(share)
    except ValueError:  # the colon is part of the folder's name
        return ExtraData(text)
    return ExtraData(folder, number)
