# SPDX-License-Identifier: Apache-2.0
"""COCO's instance annotations, with masks as run lengths or polygons.

Source: cocodataset.org, data format; masks are read and written by pycocotools.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canet_ros.files import write_text
from canet_ros.labels.export import Folder, Ids, Labels, class_id, files, image_name, unlabelled
from canet_ros.model.class_table import ClassTable
from canet_ros.training.dataset import LabelledImage


def write_coco(images: Sequence[LabelledImage], classes: ClassTable, path: Path) -> None:
    """Write a JSON file with one annotation per class and image."""
    from pycocotools import mask as coco_mask

    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, one in enumerate(images, start=1):
        ids = one.read_ids()
        height, width = ids.shape
        entries.append({"id": number, "file_name": one.image.name, "width": width, "height": height})
        for index in np.unique(ids[ids < len(classes)]):
            encoded = coco_mask.encode(np.asfortranarray(ids == index).astype(np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(index) + 1,
                    "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
                    "area": int(coco_mask.area(encoded)),
                    "bbox": coco_mask.toBbox(encoded).tolist(),
                    "iscrowd": 1,
                }
            )
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(classes.names)]
    write_text(
        path, json.dumps({"images": entries, "categories": categories, "annotations": annotations}) + "\n"
    )


def read_coco(export: Folder, classes: ClassTable) -> Labels:
    """Labels of all images of an export; where annotations overlap, the later one counts."""
    for file in files(export, ".json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "annotations" not in content:
            raise ValueError(f"{file.name} is not a COCO file: it has no annotations")
        names = {category["id"]: category["name"] for category in content["categories"]}
        of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        for image in content["images"]:
            labels = unlabelled(image["height"], image["width"])
            for annotation in of_image[image["id"]]:
                _draw(annotation["segmentation"], labels, class_id(names[annotation["category_id"]], classes))
            yield image_name(image["file_name"]), labels


def _draw(segmentation: Any, labels: Ids, value: int) -> None:
    from pycocotools import mask as coco_mask

    height, width = labels.shape
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        encoded = [{**segmentation, "counts": segmentation["counts"].encode("ascii")}]
    elif isinstance(segmentation, dict):
        encoded = [coco_mask.frPyObjects(segmentation, height, width)]
    else:
        encoded = coco_mask.frPyObjects(
            [polygon for polygon in segmentation if len(polygon) >= 6], height, width
        )
    if not encoded:  # a bounding box
        return
    mask = coco_mask.decode(coco_mask.merge(encoded))
    if mask.shape != labels.shape:
        raise ValueError(f"a mask of {mask.shape[1]}x{mask.shape[0]} in an image of {width}x{height} pixels")
    labels[mask.astype(bool)] = value
