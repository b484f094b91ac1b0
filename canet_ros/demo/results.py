# SPDX-License-Identifier: Apache-2.0
"""What ``canet demo`` leaves behind: frames matched by their stamps, figures, overlays and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.files import write_image
from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.contact_sheet import SheetRow, contact_sheet
from canet_ros.inference.visualization import color_lookup_table, colorize, in_color
from canet_ros.machine import describe_machine
from canet_ros.simulation import StreetClass
from canet_ros.training.metrics import confusion_matrix, scores

OVERLAY_FILES = "overlay_*.png"
SHEET_FILE = "contact_sheet.png"
SUMMARY_FILE = "summary.json"

PICTURE_EVERY_S = 1.0
SHEET_ROWS = 6
FRAMES_KEPT = 50  # until their mask comes

Frame = NDArray[np.uint8]


@dataclass
class FrameParts:
    """What has come of one frame; see the topics of the same names."""

    image: Frame | None = None
    labels: Frame | None = None
    mask: Frame | None = None
    overlay: Frame | None = None

    def is_picture(self) -> bool:
        return self.image is not None and self.overlay is not None


@dataclass
class Recording:
    """A run, as far as it has come. Frames are known by their stamp in nanoseconds.

    Attributes:
        class_names, class_colors: of the model's ids, RGB.
        engine: key and value of the node's engine status on /diagnostics.
        camera_size: (width, height) of the latest image, pixels.
        published_ns: every frame of the camera.
        arrival_ns: of each mask.
        latency_ms: from each image's stamp to its mask's arrival.
        pictures: the frames that are kept to be looked at, one a second.
        confusion: pixels by (truth, mask) in the model's ids; None while nothing was compared.
    """

    class_names: tuple[str, ...] = ()
    class_colors: tuple[tuple[int, int, int], ...] = ()
    engine: dict[str, str] = field(default_factory=dict)
    camera_size: tuple[int, int] = (0, 0)
    published_ns: list[int] = field(default_factory=list)
    arrival_ns: list[int] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    pictures: dict[int, FrameParts] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    _recent: dict[int, FrameParts] = field(default_factory=dict)

    def add(self, part: str, stamp_ns: int, frame: Frame, now_ns: int) -> None:
        """Put one of the parts of ``FrameParts`` to the others of its stamp."""
        parts = self._recent.setdefault(stamp_ns, FrameParts())
        setattr(parts, part, frame)
        if part == "mask":
            self.arrival_ns.append(now_ns)
            self.latency_ms.append((now_ns - stamp_ns) * 1e-6)
            self._keep_one_a_second(stamp_ns, parts)
        if part in ("mask", "labels") and parts.mask is not None and parts.labels is not None:
            self._compare(parts.labels, parts.mask)
        while len(self._recent) > FRAMES_KEPT:
            self._recent.pop(next(iter(self._recent)))

    def is_complete(self) -> bool:
        """Whether mask and overlay of the last published frame have come."""
        parts = self._recent.get(self.published_ns[-1]) if self.published_ns else None
        return parts is not None and parts.mask is not None and parts.overlay is not None

    def _keep_one_a_second(self, stamp_ns: int, parts: FrameParts) -> None:
        first_ns = next(iter(self.pictures), stamp_ns)
        # A twentieth early, because a camera's frames come now a little before, now a little after their time.
        if (stamp_ns - first_ns) * 1e-9 >= (len(self.pictures) - 0.05) * PICTURE_EVERY_S:
            self.pictures[stamp_ns] = parts

    def _compare(self, truth: Frame, mask: Frame) -> None:
        table = class_of_truth(self.class_names)
        if mask.shape == truth.shape and (table != 255).any():
            confusion = confusion_matrix(table[truth], mask, len(self.class_names))
            self.confusion = confusion if self.confusion is None else self.confusion + confusion


def class_of_truth(class_names: Sequence[str]) -> NDArray[np.uint8]:
    """Table (256,) from the ids of the street camera's truth to a model's ids of the same names; 255: none."""
    table = np.full(256, 255, np.uint8)
    for street_class in StreetClass:
        name = street_class.name.lower()
        if name in class_names:
            table[street_class] = class_names.index(name)
    return table


def summarize(recording: Recording, source: str) -> dict[str, Any]:
    """Contents of summary.json: counts, rates, agreement with the truth, and what they were measured on.

    Args:
        recording: with at least one mask.
        source: where the frames came from.
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
        found = scores(recording.confusion)
        summary["miou"], summary["pixel_accuracy"] = round(found.miou, 4), round(found.pixel_accuracy, 4)
        summary["iou"] = {
            name: None if np.isnan(iou) else round(float(iou), 4)
            for name, iou in zip(recording.class_names, found.iou)
        }
    return summary


def write_pictures(recording: Recording, summary: dict[str, Any], out: Path) -> list[str]:
    """Write the overlays and the contact sheet; the names of the files.

    Raises:
        ValueError: no overlay came whose image came too.
        OSError: a file cannot be written.
    """
    whole = [(stamp_ns, parts) for stamp_ns, parts in recording.pictures.items() if parts.is_picture()]
    if not whole:
        raise ValueError("masks came, but no overlay together with its image")
    names = [OVERLAY_FILES.replace("*", f"{index:03d}") for index in range(len(whole))]
    for name, (_, parts) in zip(names, whole):
        assert parts.overlay is not None
        write_image(out / name, parts.overlay)

    classes = ClassTable(recording.class_names, recording.class_colors)
    colors = color_lookup_table(classes, "bgr")
    with_truth = recording.confusion is not None and all(parts.labels is not None for _, parts in whole)
    rows = []
    for index in np.linspace(0, len(whole) - 1, min(SHEET_ROWS, len(whole))).round().astype(int):
        stamp_ns, parts = whole[index]
        pictures = [in_color(parts.image), parts.overlay]
        if with_truth:
            pictures.append(colorize(class_of_truth(classes.names)[parts.labels], colors))
        rows.append(SheetRow(f"{(stamp_ns - recording.published_ns[0]) * 1e-9:.1f} s", pictures))
    columns = ["camera image", "overlay", "truth"][: len(rows[0].pictures)]
    page = contact_sheet(str(summary["model"]), _subtitle(summary), columns, rows, classes)
    write_image(out / SHEET_FILE, page)
    return [*names, SHEET_FILE]


def _subtitle(summary: dict[str, Any]) -> str:
    parts = [
        f"{summary['engine']} {summary['precision']} on {summary['device']} at {summary['resolution']}",
        f"{summary['fps'] or '-'} frames per second",
        f"latency {summary['latency_ms']['p50']} ms",
    ]
    if summary["miou"] is not None:
        parts.append(f"mIoU {summary['miou']:.3f}")
    return ",  ".join(parts)
