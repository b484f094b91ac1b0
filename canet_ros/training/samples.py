# SPDX-License-Identifier: Apache-2.0
"""Samples of a training, as PyTorch's DataLoader takes them: augmented images and their order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from canet_ros.training.augmentation import augment
from canet_ros.training.dataset import LabelledImage


class SampleIndex(NamedTuple):
    """One training sample."""

    epoch: int
    position: int  # index of the image
    repeat: int  # number of earlier samples of this image in the epoch
    batch: int  # index of the batch in the epoch; all samples of a batch have one shape


class AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    """Augmented training samples. Each is a function of seed and index only, so that a resumed run sees the same ones.

    A sample is (image (3, h, w) uint8 RGB, labels (h, w) int64), where (w, h) is one of ``shapes``.
    """

    def __init__(
        self, images: Sequence[LabelledImage], classes: int, shapes: Sequence[tuple[int, int]], seed: int
    ) -> None:
        self._images = images
        self._classes = classes
        self._shapes = shapes
        self._seed = seed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: SampleIndex) -> tuple[Tensor, Tensor]:
        cv2.setNumThreads(0)
        batch_rng = np.random.default_rng((self._seed, index.epoch, index.batch))
        shape = self._shapes[int(batch_rng.integers(len(self._shapes)))]
        rng = np.random.default_rng((self._seed, index.epoch, index.position, index.repeat))
        image, label = self._images[index.position].read(self._classes)
        image, label = augment(image, label, shape, rng)
        rgb = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
        return torch.from_numpy(rgb), torch.from_numpy(label.astype(np.int64))


class EpochSampler(Sampler[SampleIndex]):
    """Order of one epoch: the first ``main`` images, and a number of images drawn from each further folder.

    Args:
        main: number of images of which every epoch uses all.
        extra: (number of images, number drawn per epoch) of each further folder. All images of a folder are drawn
            before any is drawn again.
        batch_size: of one process.
        rank: of this process; each process draws its part of every global batch.
        world_size: number of processes.
    """

    def __init__(
        self,
        main: int,
        extra: Sequence[tuple[int, int]],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._main = main
        self._extra = extra
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self.epoch = 0

    def __len__(self) -> int:
        return (self._main + sum(drawn for _, drawn in self._extra)) // self._world_size

    def __iter__(self) -> Iterator[SampleIndex]:
        rng = np.random.default_rng((self._seed, self.epoch))
        chosen = [(position, 0) for position in range(self._main)]
        first = self._main
        for images, drawn in self._extra:
            for repeat in range(math.ceil(drawn / images)):
                selected = rng.permutation(images)[: drawn - repeat * images]
                chosen += [(first + int(position), repeat) for position in selected]
            first += images
        order = rng.permutation(len(chosen))[self._rank :: self._world_size]
        for count, index in enumerate(order[: len(self)]):
            position, repeat = chosen[int(index)]
            yield SampleIndex(self.epoch, position, repeat, count // self._batch_size)
