# SPDX-License-Identifier: Apache-2.0
"""Segments the real street images that ``canet demo`` ships, see street/README.md for their source and terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from canet_ros.demo.results import street_to_model_ids
from canet_ros.files import write_image
from canet_ros.opencv import read_image
from canet_ros.pipeline.contact_sheet import SheetRow, contact_sheet
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, colorize
from canet_ros.training.metrics import confusion_matrix, scores

STREET_SHEET_FILE = "street_sheet.jpg"
_FOLDER = Path(__file__).parent / "street"


def segment_street(segmenter: Segmenter, sheet: Path) -> dict[str, Any] | None:
    """Segment the street images and write a contact sheet.

    Returns:
        Number of images and mIoU against their automatic labels; None if the model has none of their classes.

    Raises:
        OSError: the sheet cannot be written.
    """
    classes = segmenter.spec.classes
    ids = street_to_model_ids(classes)
    if (ids == 255).all():
        return None
    colors = color_lookup_table(classes, "bgr")
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    rows = []
    for number, path in enumerate(sorted((_FOLDER / "images").iterdir()), 1):
        image = read_image(path)
        labels = ids[read_image(_FOLDER / "labels" / f"{path.stem}.png", cv2.IMREAD_UNCHANGED)]
        result = segmenter(image)
        confusion += confusion_matrix(labels, result.mask, len(classes))
        rows.append(SheetRow(str(number), [image, result.overlay(image), colorize(labels, colors)]))
    miou = round(scores(confusion).miou, 4)
    subtitle = f"real street,  mIoU {miou:.3f} against labels of another network, which are not ground truth"
    columns = ["image: Kathmandu Road Dataset, CC BY 4.0", "overlay", "automatic labels"]
    write_image(sheet, contact_sheet(segmenter.spec.name, subtitle, columns, rows, classes))
    return {"images": len(rows), "miou_against_automatic_labels": miou, "sheet": sheet.name}
