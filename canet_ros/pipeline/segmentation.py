# SPDX-License-Identifier: Apache-2.0
"""The result of a segmentation: class ids and confidences."""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.files import write_image
from canet_ros.model.class_table import UNLABELLED, ClassTable
from canet_ros.model.model_folder import Resolution
from canet_ros.opencv import in_color, resize
from canet_ros.pipeline.visualization import color_lookup_table, overlay


@dataclass(frozen=True, repr=False)
class Segmentation:
    """Of one image: class id per pixel and probability of that class (0..255), (H, W) uint8 each.

    ``classes`` names the ids; a segmenter's results have it.
    """

    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    classes: ClassTable | None = None

    def __repr__(self) -> str:
        """Size and the most frequent classes: ``<Segmentation 480x360: road 43 %, sky 21 %>``."""
        height, width = self.mask.shape
        ids, counts = np.unique(self.mask, return_counts=True)
        names = {**dict(enumerate(self.class_names)), UNLABELLED: "unlabelled"}
        most = sorted(zip(counts, ids), reverse=True)[:4]
        shares = ", ".join(f"{names.get(int(i), int(i))} {100 * n / self.mask.size:.0f} %" for n, i in most)
        return f"<Segmentation {width}x{height}: {shares}>"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        return self.classes.names if self.classes else ()

    def overlay(self, image: NDArray[np.uint8], alpha: float = 0.5) -> NDArray[np.uint8]:
        """The class colours, with weight ``alpha`` of 0..1, over the image of the mask's size; (H, W, 3) BGR uint8.

        Raises:
            ValueError: the image has another size, or the class table is missing.
        """
        if self.classes is None or image.shape[:2] != self.mask.shape:
            raise ValueError(
                f"an overlay takes a class table and an image of {self.mask.shape}, not {image.shape}"
            )
        return overlay(in_color(image), self.mask, color_lookup_table(self.classes, "bgr"), alpha)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mask as a grey image of class ids, by its suffix (use .png); raises as ``files.write_image``."""
        write_image(Path(path), self.mask)

    def unlabelled_below(self, min_confidence: float) -> Segmentation:
        """The same with the mask at ``UNLABELLED`` where the confidence is below ``min_confidence``, 0..1."""
        if min_confidence <= 0:
            return self
        unsure = self.confidence < math.ceil(255 * min_confidence)
        return Segmentation(np.where(unsure, np.uint8(UNLABELLED), self.mask), self.confidence, self.classes)

    def resized(self, size: Resolution) -> Segmentation:
        """The same at another (width, height), by nearest neighbour: class ids are never mixed."""
        return self if self.mask.shape == (size[1], size[0]) else _AtAnotherSize(self, size)


class _AtAnotherSize(Segmentation):
    """Planes are computed on demand: few callers need the confidence."""

    _found: Segmentation
    _size: Resolution

    def __init__(self, found: Segmentation, size: Resolution) -> None:
        vars(self).update(_found=found, _size=size, classes=found.classes)

    @functools.cached_property
    def mask(self) -> NDArray[np.uint8]:  # type: ignore[override]
        return resize_nearest(self._found.mask, self._size)

    @functools.cached_property
    def confidence(self) -> NDArray[np.uint8]:  # type: ignore[override]
        return resize_nearest(self._found.confidence, self._size)


def resize_nearest(plane: NDArray[np.uint8], size: Resolution) -> NDArray[np.uint8]:
    """A plane (H, W) at another (width, height)."""
    return resize(plane, size, cv2.INTER_NEAREST_EXACT)
