# SPDX-License-Identifier: Apache-2.0
"""Crop and rotation between a camera's image and the network, and back."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.formats import Resolution, parse_region, parse_rotation
from canet_ros.model.class_table import UNLABELLED
from canet_ros.opencv import Pixels, read_image, rotate
from canet_ros.pipeline.segmentation import Segmentation, resize_nearest

_ROTATIONS = {0: None, 90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_BACK = {90: 270, 180: 180, 270: 90}


@dataclass(frozen=True)
class Region:
    """A part of an image, in pixels from the upper left corner."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: Pixels) -> Pixels:
        """That part of an image, as a view.

        Raises:
            ValueError: the image is too small for it.
        """
        height, width = image.shape[:2]
        if self.x + self.width > width or self.y + self.height > height:
            raise ValueError(
                f"the region {self.x},{self.y},{self.width},{self.height} (x, y, width, height) is not inside an "
                f"image of {width}x{height}"
            )
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass(frozen=True, eq=False)
class CameraTransform:
    """Rotation, region and ignored pixels of a camera; the default is the identity.

    Attributes:
        rotation: degrees clockwise that bring the image upright: 0, 90, 180 or 270.
        region: the part that the network sees; None: all.
        ignored: (H, W) uint8, scaled to the image: pixels that are not 0 get no class.
    """

    rotation: int = 0
    region: Region | None = None
    ignored: Pixels | None = None

    @property
    def is_identity(self) -> bool:
        return self.rotation == 0 and self.region is None and self.ignored is None

    @property
    def leaves_unlabelled(self) -> bool:
        """Whether results have pixels without a class: outside of the region, or ignored."""
        return self.region is not None or self.ignored is not None

    def to_network(self, image: Pixels) -> Pixels:
        """The network's part of an image: the region, upright.

        Raises:
            ValueError: the image is too small for the region.
        """
        part = image if self.region is None else self.region.of(image)
        code = _ROTATIONS[self.rotation]
        return part if code is None else rotate(part, code)

    def results_size(self, size: Resolution, resolution: Resolution) -> Resolution:
        """(width, height) at which a camera of ``size`` has as many pixels as the network saw of it."""
        width, height = resolution if self.rotation in (0, 180) else resolution[::-1]
        if self.region is None:
            return width, height
        return round(size[0] * width / self.region.width), round(size[1] * height / self.region.height)

    def to_camera(self, found: Segmentation, size: Resolution, wanted: Resolution) -> Segmentation:
        """Place the segmentation of the network's part on the whole image.

        Args:
            size: of the camera's image, (width, height).
            wanted: of the result, (width, height).
        """
        if self.is_identity:
            return found.resized(wanted)
        mask = self._placed(found.mask, size, wanted, UNLABELLED)
        confidence = self._placed(found.confidence, size, wanted, 0)
        if self.ignored is not None:
            ignored = self._ignored_at(wanted)
            mask, confidence = mask.copy(), confidence.copy()
            mask[ignored], confidence[ignored] = UNLABELLED, 0
        return Segmentation(mask, confidence)

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a transform lives as long as the node is active
    def counted(self, size: Resolution, resolution: Resolution) -> NDArray[np.bool_] | None:
        """Which of the pixels that the network sees count, (h, w); None: all. ``size`` is that of the camera."""
        if self.ignored is None:
            return None
        return np.equal(resize_nearest(self.to_network(resize_nearest(self.ignored, size)), resolution), 0)

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def _ignored_at(self, size: Resolution) -> NDArray[np.bool_]:
        assert self.ignored is not None
        return np.not_equal(resize_nearest(self.ignored, size), 0)

    def _placed(self, plane: Pixels, size: Resolution, wanted: Resolution, outside: int) -> Pixels:
        if self.rotation:
            code = _ROTATIONS[_BACK[self.rotation]]
            assert code is not None
            plane = rotate(plane, code)
        if self.region is None:
            return plane if plane.shape == wanted[::-1] else resize_nearest(plane, wanted)
        x_scale, y_scale = wanted[0] / size[0], wanted[1] / size[1]
        left, top = round(self.region.x * x_scale), round(self.region.y * y_scale)
        right = max(left + 1, round((self.region.x + self.region.width) * x_scale))
        bottom = max(top + 1, round((self.region.y + self.region.height) * y_scale))
        whole = np.full(wanted[::-1], outside, np.uint8)
        whole[top:bottom, left:right] = resize_nearest(plane, (right - left, bottom - top))
        return whole


def read_camera_transforms(
    cameras: int, ignore_masks: Sequence[str], regions: Sequence[str], rotations: Sequence[int]
) -> list[CameraTransform]:
    """One transform per camera; cameras without an entry get the default.

    Raises:
        ValueError: a list is too long, a value is wrong, or a mask cannot be read.
    """
    for name, values in (("ignore_masks", ignore_masks), ("regions", regions), ("rotations", rotations)):
        if len(values) > max(cameras, 1):
            raise ValueError(f"{name} has {len(values)} entries for {cameras} cameras: give one for each")
    transforms = []
    for i in range(cameras):
        rotation = parse_rotation(int(rotations[i])) if i < len(rotations) else 0
        numbers = parse_region(regions[i]) if i < len(regions) else None
        mask = _read_mask(ignore_masks[i]) if i < len(ignore_masks) and ignore_masks[i] else None
        transforms.append(CameraTransform(rotation, Region(*numbers) if numbers else None, mask))
    return transforms


def _read_mask(path: str) -> Pixels:
    try:
        mask = read_image(Path(path).expanduser(), cv2.IMREAD_GRAYSCALE)
    except OSError as error:
        raise ValueError(f"ignore_masks: cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"ignore_masks: {error}") from error
    if mask.all():
        raise ValueError(
            f"ignore_masks: {path} is white everywhere and would ignore the whole image: white marks the ignored pixels"
        )
    return mask
