# SPDX-License-Identifier: Apache-2.0
"""Results of ``canet demo``: frames matched by stamp, metrics, overlays and a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.files import write_image
from canet_ros.machine import describe_machine
from canet_ros.model.class_table import ClassTable
from canet_ros.opencv import in_color, read_image
from canet_ros.pipeline.contact_sheet import SheetRow, contact_sheet
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, colorize
from canet_ros.simulation import StreetClass
from canet_ros.training.metrics import confusion_matrix, scores

OVERLAY_FILES = "overlay_*.png"
SHEET_FILE = "contact_sheet.png"
SUMMARY_FILE = "summary.json"
STREET_SHEET_FILE = "street_sheet.jpg"
_STREET = Path(__file__).parent / "street"

SAMPLE_PERIOD_S = 1.0
SHEET_ROWS = 6
MAX_PENDING_FRAMES = 50  # whose mask has not arrived

Pixels = NDArray[np.uint8]
Parts = dict[str, Pixels]
"""Images of one frame that have arrived: ``image``, ``labels``, ``mask`` and ``overlay``."""

_SAMPLE_PARTS = frozenset(("image", "overlay"))


@dataclass
class Recording:
    """What has arrived during a run. Frames are identified by their stamp in nanoseconds.

    Attributes:
        classes: of the model.
        engine: the node's engine status on /diagnostics.
        camera_size: (width, height) of the latest image, pixels.
        published_ns: stamps of all published frames.
        arrival_ns: arrival time of each mask.
        latency_ms: from each image's stamp to the arrival of its mask.
        samples: one frame per second of those whose image and overlay have arrived.
        confusion: pixels by (ground truth, mask) in the model's ids; None without ground truth.
    """

    classes: ClassTable
    engine: dict[str, str] = field(default_factory=dict)
    camera_size: tuple[int, int] = (0, 0)
    published_ns: list[int] = field(default_factory=list)
    arrival_ns: list[int] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    samples: dict[int, Parts] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    _recent: dict[int, Parts] = field(default_factory=dict)

    def add(self, part: str, stamp_ns: int, pixels: Pixels, now_ns: int) -> None:
        """Add a part, see ``Parts``, to the frame with this stamp."""
        parts = self._recent.setdefault(stamp_ns, {})
        parts[part] = pixels
        if part == "mask":
            self.arrival_ns.append(now_ns)
            self.latency_ms.append((now_ns - stamp_ns) * 1e-6)
        if part in _SAMPLE_PARTS and parts.keys() >= _SAMPLE_PARTS:
            self._add_sample(stamp_ns, parts)
        if part in ("mask", "labels") and "mask" in parts and "labels" in parts:
            self._compare(parts["labels"], parts["mask"])
        while len(self._recent) > MAX_PENDING_FRAMES:
            self._recent.pop(next(iter(self._recent)))

    def is_complete(self) -> bool:
        """Whether mask and overlay of the last published frame have arrived."""
        return bool(self.published_ns) and self._recent.get(self.published_ns[-1], {}).keys() >= {
            "mask",
            "overlay",
        }

    def _add_sample(self, stamp_ns: int, parts: Parts) -> None:
        first_ns = next(iter(self.samples), stamp_ns)
        # 5 % tolerance, because stamps jitter.
        if (stamp_ns - first_ns) * 1e-9 >= (len(self.samples) - 0.05) * SAMPLE_PERIOD_S:
            self.samples[stamp_ns] = parts

    def _compare(self, labels: Pixels, mask: Pixels) -> None:
        table = street_to_model_ids(self.classes)
        if mask.shape == labels.shape and (table != 255).any():
            confusion = confusion_matrix(table[labels], mask, len(self.classes))
            self.confusion = confusion if self.confusion is None else self.confusion + confusion


def street_to_model_ids(classes: ClassTable) -> NDArray[np.uint8]:
    """Table (256,) from the street camera's class ids to a model's, by name; 255 where the model has no such class."""
    table = np.full(256, 255, np.uint8)
    for street_class in StreetClass:
        name = street_class.name.lower()
        if name in classes.names:
            table[street_class] = classes.names.index(name)
    return table


def summarize(recording: Recording, source: str) -> dict[str, Any]:
    """Contents of summary.json: counts, rates, accuracy and the machine.

    Args:
        recording: has at least one mask.
        source: description of the camera's input.
    """
    published, segmented = len(recording.published_ns), len(recording.arrival_ns)
    duration_s = (recording.arrival_ns[-1] - recording.arrival_ns[0]) * 1e-9
    p50, p95 = np.percentile(recording.latency_ms, (50, 95))
    summary: dict[str, Any] = {
        "frames_published": published,
        "frames_segmented": segmented,
        "dropped": published - segmented,
        "fps": round((segmented - 1) / duration_s, 2) if duration_s > 0 else None,
        "latency_ms": {"p50": round(float(p50), 1), "p95": round(float(p95), 1)},
        "miou": None,
        "pixel_accuracy": None,
        "iou": None,
        **{
            key: recording.engine.get(key)
            for key in ("model", "engine", "device", "precision", "resolution", "passed_over")
        },
        "camera_size": "x".join(map(str, recording.camera_size)),
        "input": source,
        "host": describe_machine(),
    }
    if recording.confusion is not None:
        accuracy = scores(recording.confusion)
        summary["miou"] = round(accuracy.miou, 4)
        summary["pixel_accuracy"] = round(accuracy.pixel_accuracy, 4)
        summary["iou"] = {
            name: None if iou is None else round(iou, 4)
            for name, iou in accuracy.iou_by_class(recording.classes.names).items()
        }
    return summary


def write_images(recording: Recording, summary: dict[str, Any], out: Path) -> list[str]:
    """Write the overlays and the contact sheet; return the file names.

    Raises:
        ValueError: no overlay arrived together with its image.
        OSError: a file cannot be written.
    """
    samples = list(recording.samples.items())
    if not samples:
        raise ValueError("masks arrived, but no overlay together with its image")
    names = [OVERLAY_FILES.replace("*", f"{index:03d}") for index in range(len(samples))]
    for name, (_, parts) in zip(names, samples):
        write_image(out / name, parts["overlay"])

    colors = color_lookup_table(recording.classes, "bgr")
    with_labels = recording.confusion is not None and all("labels" in parts for _, parts in samples)
    rows = []
    for index in np.linspace(0, len(samples) - 1, min(SHEET_ROWS, len(samples))).round().astype(int):
        stamp_ns, parts = samples[index]
        images = [in_color(parts["image"]), parts["overlay"]]
        if with_labels:
            images.append(colorize(street_to_model_ids(recording.classes)[parts["labels"]], colors))
        rows.append(SheetRow(f"{(stamp_ns - recording.published_ns[0]) * 1e-9:.1f} s", images))
    columns = ["camera image", "overlay", "ground truth"][: 3 if with_labels else 2]
    subtitle = (
        f"{summary['engine']} {summary['precision']} on {summary['device']} at {summary['resolution']},  "
        f"{summary['fps'] or '-'} frames per second,  latency {summary['latency_ms']['p50']} ms"
    )
    if summary["miou"] is not None:
        subtitle += f",  mIoU {summary['miou']:.3f} on the synthetic street"
    title = f"{summary['model']}: {summary['input']}"
    write_image(out / SHEET_FILE, contact_sheet(title, subtitle, columns, rows, recording.classes))
    return [*names, SHEET_FILE]


def segment_street(segmenter: Segmenter, sheet: Path) -> dict[str, Any] | None:
    """Segment the real street images that are shipped and write a contact sheet; see street/README.md.

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
    for number, path in enumerate(sorted((_STREET / "images").iterdir()), 1):
        image = read_image(path)
        labels = ids[read_image(_STREET / "labels" / f"{path.stem}.png", cv2.IMREAD_UNCHANGED)]
        result = segmenter(image)
        confusion += confusion_matrix(labels, result.mask, len(classes))
        rows.append(SheetRow(str(number), [image, result.overlay(image), colorize(labels, colors)]))
    miou = round(scores(confusion).miou, 4)
    subtitle = f"real street,  mIoU {miou:.3f} against labels of another network, which are not ground truth"
    columns = ["image: Kathmandu Road Dataset, CC BY 4.0", "overlay", "automatic labels"]
    write_image(sheet, contact_sheet(segmenter.spec.name, subtitle, columns, rows, classes))
    return {"images": len(rows), "miou_against_automatic_labels": miou, "sheet": sheet.name}
