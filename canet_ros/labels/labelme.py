# SPDX-License-Identifier: Apache-2.0
"""labelme's JSON files, one per image, with masks (labelme 5.3 and later) and polygons.

Source: github.com/wkentaro/labelme, labelme/_label_file.py and labelme/_utils/_shape.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from canet_ros.files import write_text
from canet_ros.labels.export import (
    Folder,
    Ids,
    Labels,
    class_id,
    decode_png,
    files,
    fill_polygon,
    fill_rectangle,
    image_name,
    unlabelled,
)
from canet_ros.model.class_table import ClassTable
from canet_ros.training.dataset import LabelledImage


def write_labelme(images: Sequence[LabelledImage], classes: ClassTable, path: Path) -> None:
    """Write ``NAME.json`` with one mask per class into the folder ``path``, and ``labelme.txt`` beside it.

    Existing JSON files are kept: labelme stores corrections in them.
    """
    for one in images:
        if (path / f"{one.name}.json").exists():
            continue
        ids = one.read_ids()
        shapes = []
        for index in np.unique(ids[ids < len(classes)]):
            mask = (ids == index).astype(np.uint8)
            x, y, width, height = cv2.boundingRect(mask)
            png = cv2.imencode(".png", 255 * mask[y : y + height, x : x + width])[1]
            shapes.append(
                {
                    "label": classes.names[index],
                    "points": [[x, y], [x + width - 1, y + height - 1]],
                    "group_id": None,
                    "description": "",
                    "shape_type": "mask",
                    "flags": {},
                    "mask": base64.b64encode(png.tobytes()).decode("ascii"),
                }
            )
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"../images/{one.image.name}",
            "imageData": None,
            "imageHeight": ids.shape[0],
            "imageWidth": ids.shape[1],
        }
        write_text(path / f"{one.name}.json", json.dumps(content) + "\n")
    write_text(path.with_suffix(".txt"), "".join(f"{name}\n" for name in classes.names))


def read_labelme(export: Folder, classes: ClassTable) -> Labels:
    """Labels of all JSON files; where shapes overlap, the later one counts. Lines and points have no area."""
    for file in files(export, ".json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "shapes" not in content:
            raise ValueError(f"{file.name} is not a file of labelme: it has no shapes")
        labels = unlabelled(content["imageHeight"], content["imageWidth"])
        for shape in content["shapes"]:
            _draw(shape, labels, class_id(shape["label"], classes), file.name)
        yield image_name(content["imagePath"]), labels


def _draw(shape: dict[str, Any], labels: Ids, value: int, name: str) -> None:
    points = np.array(shape["points"], np.float64)
    kind = shape.get("shape_type") or "polygon"
    if kind == "mask":
        mask = decode_png(base64.b64decode(shape["mask"]), name, cv2.IMREAD_GRAYSCALE) > 0
        x, y = (max(0, int(value)) for value in np.round(points[0]))
        part = labels[y : y + mask.shape[0], x : x + mask.shape[1]]
        part[mask[: part.shape[0], : part.shape[1]]] = value
    elif kind in ("polygon", "oriented_rectangle"):
        fill_polygon(labels, points, value)
    elif kind == "rectangle":
        fill_rectangle(labels, points, value)
    elif kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        cv2.circle(
            labels, tuple(np.round(points[0]).astype(int).tolist()), round(radius), (value,), cv2.FILLED
        )
