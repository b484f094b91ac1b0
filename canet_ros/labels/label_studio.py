# SPDX-License-Identifier: Apache-2.0
"""Label Studio's JSON tasks, with brush masks as run lengths, polygons and rectangles.

Source: labelstud.io, guide, import pre-annotations; tags BrushLabels and PolygonLabels. The run lengths are those of
thi.ng/rle-pack: 32 bits number of values, 5 bits word size - 1, four times 4 bits of a size - 1, and then runs:
1 bit whether one value is repeated, 2 bits that choose a size, length - 1 in that size, and the values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from canet_ros.files import write_text
from canet_ros.labels.export import (
    Folder,
    Ids,
    Labels,
    class_id,
    files,
    fill_polygon,
    fill_rectangle,
    image_name,
    unlabelled,
)
from canet_ros.model.class_table import ClassTable
from canet_ros.training.dataset import LabelledImage

_CHANNELS = 4  # a mask is stored as RGBA; alpha is what counts
_MAX_RUN = 1 << 16


def write_label_studio(images: Sequence[LabelledImage], classes: ClassTable, path: Path) -> None:
    """Write tasks with predictions, and the labelling configuration beside it, with the suffix ``.xml``.

    The tasks name the images of ``images/`` in Label Studio's local storage, whose root is the folder of ``path``.
    """
    tasks = []
    for one in images:
        ids = one.read_ids()
        results = [
            {
                "id": f"{one.name}-{index}",
                "type": "brushlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": ids.shape[1],
                "original_height": ids.shape[0],
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": encode_rle(ids == index),
                    "brushlabels": [classes.names[index]],
                },
            }
            for index in np.unique(ids[ids < len(classes)])
        ]
        address = f"/data/local-files/?d=images/{one.image.name}"
        tasks.append({"data": {"image": address}, "predictions": [{"result": results}]})
    lines = ['  <Image name="image" value="$image"/>', '  <BrushLabels name="label" toName="image">']
    for name, (red, green, blue) in zip(classes.names, classes.colors):
        lines.append(f'    <Label value={quoteattr(name)} background="#{red:02x}{green:02x}{blue:02x}"/>')
    configuration = "\n".join(["<View>", *lines, "  </BrushLabels>", "</View>", ""])
    write_text(path.with_suffix(".xml"), configuration)
    write_text(path, json.dumps(tasks) + "\n")


def read_label_studio(export: Folder, classes: ClassTable) -> Labels:
    """Labels of an export as JSON. Of several annotations of a task the last counts; skipped tasks are left out."""
    for file in files(export, ".json"):
        tasks = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(tasks, list) or not all(
            isinstance(task, dict) and "data" in task for task in tasks
        ):
            raise ValueError(f"{file.name} is not an export of Label Studio: choose the format JSON")
        for task in tasks:
            annotations = [one for one in task.get("annotations", []) if not one.get("was_cancelled")]
            results = [one for one in annotations[-1]["result"] if "value" in one] if annotations else []
            if not results:
                continue
            labels = unlabelled(results[0]["original_height"], results[0]["original_width"])
            for result in results:
                _draw(result, labels, classes)
            yield image_name(next(iter(task["data"].values()))), labels


def _draw(result: dict[str, Any], labels: Ids, classes: ClassTable) -> None:
    value, kind = result["value"], result["type"]
    names = value.get(kind) or value.get("labels")
    if not names:
        return
    index = class_id(names[0], classes)
    height, width = labels.shape
    to_pixels = np.array([width, height]) / 100  # coordinates are in percent
    if value.get("format") == "rle":
        labels[decode_rle(value["rle"], height, width)] = index
    elif "points" in value:
        fill_polygon(labels, np.array(value["points"], np.float64) * to_pixels, index)
    elif "width" in value:
        left, top = value["x"], value["y"]
        corners = np.array([[left, top], [left + value["width"], top + value["height"]]], np.float64)
        fill_rectangle(labels, corners * to_pixels, index)


def encode_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths of a mask (H, W) as Label Studio stores them, one number per byte."""
    values = mask.ravel()
    starts = np.flatnonzero(np.diff(values, prepend=~values[0]))
    lengths = np.diff(starts, append=values.size) * _CHANNELS
    bits = [f"{values.size * _CHANNELS:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in (3, 4, 8, 16))]
    for length, value in zip(lengths.tolist(), values[starts].tolist()):
        while length:
            run = min(length, _MAX_RUN)
            bits.append(f"111{run - 1:016b}{255 * value:08b}")
            length -= run
    text = "".join(bits)
    return list(int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big"))


def decode_rle(rle: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The mask (height, width) of run lengths as Label Studio stores them.

    Raises:
        ValueError: they are damaged, or of another size.
    """
    bits = "".join(f"{byte:08b}" for byte in bytes(rle))
    position = 0

    def read(count: int) -> int:
        nonlocal position
        position += count
        if position > len(bits):
            raise ValueError("the run lengths of a brush mask end too early")
        return int(bits[position - count : position], 2)

    size, word_size = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if size != height * width * _CHANNELS:
        raise ValueError(f"a brush mask of {size // _CHANNELS} pixels in an image of {width}x{height}")
    values = np.zeros(size, np.uint8)
    start = 0
    while start < size:
        repeated = read(1)
        end = start + 1 + read(sizes[read(2)])
        if repeated:
            values[start:end] = min(read(word_size), 255)
        else:
            values[start:end] = [min(read(word_size), 255) for _ in range(start, end)][: size - start]
        start = end
    return values.reshape(height, width, _CHANNELS)[:, :, 3] > 0
