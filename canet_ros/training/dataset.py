# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures with label images beside them, in CamVid's layout.

``<split>/images/NAME.png`` is the picture, ``<split>/labels/NAME.png`` its 8-bit class ids. Ids that the class table
does not have are ignored in training and in every figure.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.pictures import PICTURE_SUFFIXES, differences_from_file, in_short
from canet_ros.opencv import read_image
from canet_ros.picture_header import exif_orientation
from canet_ros.training.augmentation import augment

IGNORED = 255


@dataclass(frozen=True)
class LabelledImage:
    """Where a picture and its labels lie."""

    image: Path
    label: Path

    @property
    def name(self) -> str:
        return self.image.stem

    def read(self, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) BGR uint8 and labels (H, W) uint8, ids of ``classes`` and above set to ``IGNORED``.

        Raises:
            ValueError: a file cannot be decoded, or the two differ in size.
        """
        image, label = read_image(self.image), self.read_ids()
        if label.shape != image.shape[:2]:
            turned = exif_orientation(self.image.read_bytes()) > 4 and label.shape == image.shape[1::-1]
            advice = (
                ": the image is turned by its EXIF orientation, and the labels were drawn on the pixels as they are "
                "stored; turn the labels too, or remove the orientation from the image"
            )
            raise ValueError(
                f"{self.label} is {label.shape}, its picture {image.shape[:2]}: sizes must agree"
                + (advice if turned else "")
            )
        return image, np.where(label < classes, label, IGNORED).astype(np.uint8)

    def read_ids(self) -> NDArray[np.uint8]:
        """Ids (H, W) uint8 as they are stored, those outside of any class table too; raises as ``read``."""
        with self.label.open("rb") as file:
            header = file.read(26)
        if header and not header.startswith(b"\x89PNG"):
            raise ValueError(
                f"{self.label} is not a PNG, whatever its name says: write the ids as an 8-bit grey PNG"
            )
        kind = _PNG_KINDS.get(header[25]) if len(header) > 25 else None
        if kind:
            raise ValueError(
                f"{self.label}: expected one 8-bit channel of class ids, got {kind}: write each pixel's place in the "
                "class table into a grey PNG"
            )
        label = read_image(self.label, cv2.IMREAD_UNCHANGED)
        if header[24] != 8:  # OpenCV makes 255 of the highest, and other ids of the others
            raise ValueError(
                f"{self.label}: expected 8 bits a pixel, got {header[24]}: write the ids as an 8-bit grey PNG"
            )
        return label


# Kinds of PNG that are not one grey channel.
_PNG_KINDS = {2: "RGB colours", 3: "ids behind a palette", 4: "grey with transparency", 6: "RGB colours"}


def count_ids(
    pictures: Sequence[LabelledImage],
    classes: ClassTable,
    warn: Callable[[str], None],
    images: bool = False,
) -> NDArray[np.int64]:
    """How many pixels have each id, (256,), those that the class table lacks too.

    Args:
        warn: told of ids that the table lacks, and of label images without any that it has.
        images: read every image too, so that one that is broken or of another size is found now.

    Raises:
        ValueError: no pixel has an id of the table, or a file is not as ``LabelledImage.read`` wants it.
    """
    counts = np.zeros(IGNORED + 1, np.int64)
    unlabelled = []
    for picture in pictures:
        if images:
            picture.read(len(classes))
        found = np.bincount(picture.read_ids().ravel(), minlength=IGNORED + 1)
        if not found[: len(classes)].any():
            unlabelled.append(str(picture.label))
        counts += found
    folders = in_short(list(dict.fromkeys(str(picture.label.parent) for picture in pictures)))
    table = f"the {len(classes)} classes (0 to {len(classes) - 1})"
    if not counts[: len(classes)].any():
        raise ValueError(
            f"{folders}: no pixel of the {len(pictures)} label images has an id of {table}; they hold "
            f"{_shares(counts, 0)}: write each pixel's place in the class table"
        )
    if counts[len(classes) : IGNORED].any():
        warn(f"{folders}: ignored are the ids that the class table lacks: {_shares(counts, len(classes))}")
    if unlabelled:
        warn(f"{in_short(unlabelled)}: no pixel has an id of {table}, nothing is learned or measured")
    return counts


def warn_about_missing_classes(
    counts: NDArray[np.int64], classes: ClassTable, where: Path, warn: Callable[[str], None]
) -> None:
    """Name the classes without a pixel; ``counts`` as ``count_ids`` gives them, of the labels in ``where``."""
    missing = [f"{name} ({i})" for i, name in enumerate(classes.names) if not counts[i]]
    if missing:
        ignored = _shares(counts, len(classes))
        warn(
            f"{where}: no label has a pixel of the class{'es' * (len(missing) > 1)} {in_short(missing, 20)}"
            + (f"; ignored are the ids {ignored}" if ignored else "")
        )


def _shares(counts: NDArray[np.int64], first: int) -> str:
    ids = [i for i in np.flatnonzero(counts) if i >= first]
    return in_short([f"{i} ({counts[i] / counts.sum():.1%})" for i in ids], 6)


def to_stderr(text: str) -> None:
    """A line for whoever started the command."""
    print(text, file=sys.stderr)


def find_labelled_images(
    split: Path,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    warn: Callable[[str], None] = to_stderr,
) -> list[LabelledImage]:
    """All labelled pictures of a split, by name; ``only`` and ``without`` choose by prefix of the name (a drive).

    Args:
        warn: told of what lies there and is not used.

    Raises:
        ValueError: the folder is not in the layout, a label is missing or is that of two pictures, nothing is left.
    """
    if not (split / "images").is_dir() or not (split / "labels").is_dir():
        raise ValueError(f"{split} must hold the folders images/ and labels/")
    files = sorted(file for file in (split / "images").iterdir() if not file.name.startswith("."))
    images = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    _warn_of_unused(split, files, images, warn)
    for prefix in only:
        if not any(image.name.startswith(prefix) for image in images):
            warn(f"{split}/images holds no picture that begins with {prefix}")
    pictures: list[LabelledImage] = []
    for image in images:
        if only and not image.name.startswith(tuple(only)):
            continue
        if without and image.name.startswith(tuple(without)):
            continue
        label = split / "labels" / f"{image.stem}.png"
        if not label.is_file():
            raise ValueError(f"{label} is missing: every picture needs its labels")
        if pictures and pictures[-1].label == label:  # sorted: files of one name follow each other
            raise ValueError(
                f"{pictures[-1].image} and {image} have one label file, {label}: keep one of them"
            )
        pictures.append(LabelledImage(image, label))
    if not pictures:
        names = [f"that begins with {' or '.join(only)}"] if only else []
        names += [f"that does not begin with {' or '.join(without)}"] if without else []
        raise ValueError(f"{split}/images holds no picture {' and '.join(names)}".rstrip())
    for sentence in differences_from_file(picture.image for picture in pictures):
        warn(sentence)
    return pictures


def _warn_of_unused(
    split: Path, files: Sequence[Path], images: Sequence[Path], warn: Callable[[str], None]
) -> None:
    stems = {image.stem for image in images}
    others = [file.name for file in files if file.suffix.lower() not in PICTURE_SUFFIXES]
    if others:
        warn(f"{split}/images: {in_short(others)}: no picture by its name, left out")
    alone = sorted(label.name for label in (split / "labels").glob("*.png") if label.stem not in stems)
    if alone:
        warn(f"{split}/labels: {in_short(alone)}: no picture of this name in images/, left out")


@dataclass(frozen=True)
class ExtraData:
    """A folder of further labelled pictures, and how many of them an epoch sees per training picture.

    ``share`` None: what the training takes for folders without a share of their own.

    Raises:
        ValueError: no folder is named, or the share is not above 0.
    """

    folder: str
    share: float | None = None

    def __post_init__(self) -> None:
        if not self.folder:
            raise ValueError(
                f"extra_data {str(self)!r}: expected FOLDER or FOLDER:SHARE, for example streets:0.5"
            )
        if self.share is not None and not 0 < self.share < math.inf:
            raise ValueError(
                f"extra_data {str(self)!r}: the share must be a number above 0, for example {self.folder}:0.5"
            )

    def __str__(self) -> str:
        return self.folder if self.share is None else f"{self.folder}:{self.share:g}"


def parse_extra_data(text: str) -> ExtraData:
    """``"FOLDER"`` or ``"FOLDER:SHARE"``; a folder that is there under the whole of ``text`` is meant itself.

    Raises:
        ValueError: as ``ExtraData``.
    """
    folder, colon, share = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return ExtraData(text)
    try:
        number = float(share)
    except ValueError:  # a colon of the folder's own name
        return ExtraData(text)
    return ExtraData(folder, number)


class SampleIndex(NamedTuple):
    """One sample of a training."""

    epoch: int
    position: int  # of the picture among all
    repeat: int  # how often the epoch has shown this picture before
    batch: int  # number of the batch in the epoch; all samples of a batch have one shape


class AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    """Augmented training samples, each a pure function of seed and index: a resumed run sees the same ones.

    A sample is (image (3, h, w) uint8 RGB, labels (h, w) int64), (w, h) being one of ``shapes``.
    """

    def __init__(
        self, pictures: Sequence[LabelledImage], classes: int, shapes: Sequence[tuple[int, int]], seed: int
    ) -> None:
        self._pictures = pictures
        self._classes = classes
        self._shapes = shapes
        self._seed = seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: SampleIndex) -> tuple[Tensor, Tensor]:
        cv2.setNumThreads(0)
        of_batch = np.random.default_rng((self._seed, index.epoch, index.batch))
        shape = self._shapes[int(of_batch.integers(len(self._shapes)))]
        rng = np.random.default_rng((self._seed, index.epoch, index.position, index.repeat))
        image, label = self._pictures[index.position].read(self._classes)
        image, label = augment(image, label, shape, rng)
        rgb = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
        return torch.from_numpy(rgb), torch.from_numpy(label.astype(np.int64))


class EpochSampler(Sampler[SampleIndex]):
    """Order of one epoch: all of the first ``main`` pictures, and of each folder after them as many as it shall give.

    ``extra`` is (pictures, drawn an epoch) of each further folder. Of a folder that gives more than it has, every
    picture comes before any comes again. With several processes each one, told by its ``rank``, takes its share of
    every global batch; ``batch_size`` is that of one process.
    """

    def __init__(
        self,
        main: int,
        extra: Sequence[tuple[int, int]],
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._main = main
        self._extra = extra
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._processes = processes
        self.epoch = 0

    def __len__(self) -> int:
        return (self._main + sum(drawn for _, drawn in self._extra)) // self._processes

    def __iter__(self) -> Iterator[SampleIndex]:
        rng = np.random.default_rng((self._seed, self.epoch))
        chosen = [(position, 0) for position in range(self._main)]
        first = self._main
        for pictures, drawn in self._extra:
            for repeat in range(math.ceil(drawn / pictures)):
                shown = rng.permutation(pictures)[: drawn - repeat * pictures]
                chosen += [(first + int(position), repeat) for position in shown]
            first += pictures
        order = rng.permutation(len(chosen))[self._rank :: self._processes]
        for count, place in enumerate(order[: len(self)]):
            position, repeat = chosen[int(place)]
            yield SampleIndex(self.epoch, position, repeat, count // self._batch_size)
