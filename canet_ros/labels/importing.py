# SPDX-License-Identifier: Apache-2.0
"""Import of corrected labels: from a tool's export into the layout of ``canet train``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from canet_ros.files import write_image
from canet_ros.labels.export import Ids, open_export
from canet_ros.labels.formats import FORMATS
from canet_ros.model.class_table import UNLABELLED, ClassTable
from canet_ros.opencv import read_image
from canet_ros.pipeline.image_files import IMAGE_SUFFIXES


@dataclass(frozen=True)
class ImportResult:
    """Names of the images with imported labels, of labels without an image, and of images without labels."""

    imported: list[str]
    without_image: list[str]
    without_labels: list[str]


def import_labels(
    export: Path, format_name: str, classes: ClassTable, images: Path, out: Path, force: bool = False
) -> ImportResult:
    """Write ``out/train/images`` and ``out/train/labels`` from an export and the folder of its images.

    All labels are checked before the first one is written.

    Args:
        format_name: a key of ``FORMATS``.

    Raises:
        ValueError: the export is damaged or of another format; a class or id is not in the class table; labels have
            another size than their image; or no labels belong to an image.
        FileExistsError: ``out/train`` exists, and ``force`` is false.
    """
    folder = out / "train"
    if not force and folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} exists: give another --out, or --force to replace labels in it")
    files = {file.stem: file for file in sorted(images.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES}
    names = []
    for name, labels in _read(export, format_name, classes):
        names.append(name)
        if name in files:
            _check(name, labels, files[name], classes)
    imported = [name for name in names if name in files]
    if not imported:
        raise ValueError(
            f"{export}: no labels belong to an image in {images} ({len(names)} label images, {len(files)} images): "
            "give the folder of the images with --images"
        )
    for name, labels in _read(export, format_name, classes):
        if name in files:
            write_image(folder / "labels" / f"{name}.png", labels)
            (folder / "images").mkdir(exist_ok=True)
            shutil.copyfile(files[name], folder / "images" / files[name].name)
    return ImportResult(
        imported, [name for name in names if name not in files], sorted(files.keys() - set(imported))
    )


def _read(export: Path, format_name: str, classes: ClassTable) -> Iterator[tuple[str, Ids]]:
    with open_export(export) as opened:
        try:
            yield from FORMATS[format_name].read(opened, classes)
        except (KeyError, TypeError, IndexError, AttributeError, StopIteration) as error:
            raise ValueError(
                f"{export} is not a complete export of the format {format_name} ({type(error).__name__}: {error})"
            ) from error


def _check(name: str, labels: Ids, image: Path, classes: ClassTable) -> None:
    height, width = read_image(image).shape[:2]
    if labels.shape != (height, width):
        raise ValueError(
            f"labels of {name} are {labels.shape[1]}x{labels.shape[0]} pixels, its image {image} is {width}x{height}"
        )
    unknown = [int(index) for index in np.unique(labels) if len(classes) <= index < UNLABELLED]
    if unknown:
        raise ValueError(
            f"labels of {name} have the ids {unknown}: the class table has 0 to {len(classes) - 1}, and {UNLABELLED} "
            "is for pixels without a class"
        )
