# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures with label images beside them, in CamVid's layout.

``<split>/images/NAME.png`` is the picture, ``<split>/labels/NAME.png`` its 8-bit class ids. Ids that the class table
does not have are ignored in training and in every figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from canet_ros.inference.pictures import PICTURE_SUFFIXES
from canet_ros.opencv import read_picture
from canet_ros.training.augmentation import augment

IGNORED = 255


@dataclass(frozen=True)
class LabelledPicture:
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
        image = read_picture(self.image)
        label = read_picture(self.label, cv2.IMREAD_UNCHANGED)
        if label.ndim != 2 or label.dtype != np.uint8:
            raise ValueError(
                f"{self.label}: expected one 8-bit channel of class ids, got {label.dtype} {label.shape}"
            )
        if label.shape != image.shape[:2]:
            raise ValueError(
                f"{self.label} is {label.shape}, its picture {image.shape[:2]}: sizes must agree"
            )
        return image, np.where(label < classes, label, IGNORED).astype(np.uint8)


def find_pictures(
    split: Path, only: Sequence[str] = (), without: Sequence[str] = ()
) -> list[LabelledPicture]:
    """All labelled pictures of a split, by name; ``only`` and ``without`` choose by prefix of the name (a drive).

    Raises:
        ValueError: the folder is not in the layout, a label is missing, or nothing is left.
    """
    if not (split / "images").is_dir() or not (split / "labels").is_dir():
        raise ValueError(f"{split} must hold the folders images/ and labels/")
    pictures = []
    for image in sorted((split / "images").iterdir()):
        if image.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        if only and not image.name.startswith(tuple(only)):
            continue
        if without and image.name.startswith(tuple(without)):
            continue
        label = split / "labels" / f"{image.stem}.png"
        if not label.is_file():
            raise ValueError(f"{label} is missing: every picture needs its labels")
        pictures.append(LabelledPicture(image, label))
    if not pictures:
        raise ValueError(f"{split}/images holds no picture with a name that was asked for")
    return pictures


class AugmentedPictures(Dataset[tuple[Tensor, Tensor]]):
    """Augmented training samples, each a pure function of (seed, epoch, index): a resumed run sees the same ones.

    An index is (epoch, position of the picture). A sample is (image (3, h, w) uint8 RGB, labels (h, w) int64).
    """

    def __init__(
        self, pictures: Sequence[LabelledPicture], classes: int, crop: tuple[int, int], seed: int
    ) -> None:
        self._pictures = pictures
        self._classes = classes
        self._crop = crop
        self._seed = seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: tuple[int, int]) -> tuple[Tensor, Tensor]:
        cv2.setNumThreads(0)
        epoch, position = index
        rng = np.random.default_rng((self._seed, epoch, position))
        image, label = self._pictures[position].read(self._classes)
        image, label = augment(image, label, self._crop, rng)
        rgb = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
        return torch.from_numpy(rgb), torch.from_numpy(label.astype(np.int64))


class EpochSampler(Sampler[tuple[int, int]]):
    """Order of one epoch: all of the first ``main`` pictures and ``extra_count`` drawn from those after them.

    With several processes each one, told by its ``rank``, takes its share of every global batch.
    """

    def __init__(
        self, main: int, extra: int, extra_count: int, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        self._main = main
        self._extra = extra
        self._extra_count = min(extra_count, extra)
        self._seed = seed
        self._rank = rank
        self._processes = processes
        self.epoch = 0

    def __len__(self) -> int:
        return (self._main + self._extra_count) // self._processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng((self._seed, self.epoch))
        chosen = np.arange(self._main)
        if self._extra_count:
            drawn = self._main + rng.choice(self._extra, self._extra_count, replace=False)
            chosen = np.concatenate((chosen, drawn))
        order = rng.permutation(chosen)
        for position in order[self._rank :: self._processes][: len(self)]:
            yield self.epoch, int(position)
