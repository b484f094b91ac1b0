# SPDX-License-Identifier: Apache-2.0
"""Labels as one image of ids or colours: plain folders, and CVAT's "Segmentation mask 1.1".

Source: docs.cvat.ai, dataset management, formats, Segmentation mask.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.files import atomic_write
from canet_ros.labels.export import Folder, Ids, Labels, class_id, decode_png, files, unlabelled
from canet_ros.model.class_table import UNLABELLED, ClassTable
from canet_ros.training.dataset import LabelledImage

Color = tuple[int, int, int]  # RGB
_BLACK: Color = (0, 0, 0)


def write_nothing(images: Sequence[LabelledImage], classes: ClassTable, path: Path) -> None:
    """Images of class ids are in this format already."""


def read_masks(export: Folder, classes: ClassTable) -> Labels:
    """Label images: class ids in one channel, or the colours of the class table."""
    colors = dict(zip(classes.colors, range(len(classes))))
    if len(colors) < len(classes):
        colors = {}
    found = files(export, ".png")
    if any("labels" in str(file).split("/")[-2:-1] for file in found):  # a folder with images/ beside it
        found = [file for file in found if "labels" in str(file).split("/")[-2:-1]]
    for file in found:
        pixels = decode_png(file.read_bytes(), file.name)
        yield Path(file.name).stem, pixels if pixels.ndim == 2 else _ids_of_colors(pixels, colors, file.name)


def write_cvat(images: Sequence[LabelledImage], classes: ClassTable, path: Path) -> None:
    """Write an archive in the format Segmentation mask 1.1."""
    colors = [_voc_color(index + 1) for index in range(len(classes))]  # one object per class
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(classes), 0] = np.array(colors)[:, ::-1]
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    lines += [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(classes.names, colors)]
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("labelmap.txt", "\n".join(lines) + "\n")
        archive.writestr("ImageSets/Segmentation/default.txt", "".join(f"{one.name}\n" for one in images))
        for one in images:
            ids = one.read_ids()
            colored = cv2.imencode(".png", cv2.LUT(cv2.merge([ids, ids, ids]), table))[1].tobytes()
            for kind in ("SegmentationClass", "SegmentationObject"):
                archive.writestr(f"{kind}/{one.name}.png", colored)


def read_cvat(export: Folder, classes: ClassTable) -> Labels:
    """Labels of an export in the format Segmentation mask 1.1."""
    maps = [file for file in files(export, ".txt") if file.name == "labelmap.txt"]
    masks = [file for file in files(export, ".png") if "SegmentationClass/" in str(file)]
    if not maps or not masks:
        raise ValueError(
            "labelmap.txt and SegmentationClass/ are missing: in CVAT, export the task as Segmentation mask 1.1"
        )
    colors = {_BLACK: UNLABELLED}
    for line in maps[0].read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if not name.startswith("#") and rest:
            red, green, blue = (int(value) for value in rest.partition(":")[0].split(","))
            colors[red, green, blue] = class_id(name, classes)
    for file in masks:
        pixels = decode_png(file.read_bytes(), file.name, cv2.IMREAD_COLOR)
        yield Path(file.name).stem, _ids_of_colors(pixels, colors, file.name)


def _voc_color(index: int) -> Color:
    """Colour of a class or an instance in PASCAL VOC: the bits of the index, spread over the channels."""
    red, green, blue = (
        sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3)
    )
    return red, green, blue


def _ids_of_colors(pixels: NDArray[np.uint8], colors: Mapping[Color, int], name: str) -> Ids:
    """Ids (H, W) of colours (H, W, 3 or 4) BGR.

    Raises:
        ValueError: a colour is not in ``colors``.
    """
    blue, green, red = (pixels[:, :, channel].astype(np.int32) for channel in range(3))
    codes = red << 16 | green << 8 | blue
    labels = unlabelled(*codes.shape)
    unknown = np.ones(codes.shape, bool)
    for (red_value, green_value, blue_value), index in colors.items():
        same = codes == (red_value << 16 | green_value << 8 | blue_value)
        labels[same] = index
        unknown &= ~same
    if unknown.any():
        code = int(codes[unknown][0])
        raise ValueError(
            f"{name}: the colour ({code >> 16}, {code >> 8 & 255}, {code & 255}) of {unknown.mean():.1%} of the pixels "
            "is not in the class table: give the table with these colours with --classes"
        )
    return labels
