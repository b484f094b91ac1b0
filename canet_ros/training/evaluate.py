# SPDX-License-Identifier: Apache-2.0
"""Measure a model as it is used: through ``Segmenter``, on any engine and precision, at the pictures' own size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.contact_sheet import SheetRow, contact_sheet
from canet_ros.inference.familiarity import figures
from canet_ros.inference.segmenter import Segmentation, Segmenter
from canet_ros.inference.visualization import color_lookup_table, colorize, overlay
from canet_ros.training.calibration import Reliability, reliability
from canet_ros.training.dataset import LabelledImage
from canet_ros.training.metrics import confusion_matrix, scores


@dataclass(frozen=True)
class Comparison:
    """Confusion matrix over all pictures, (classes, classes) by (truth, prediction), and the mIoU of each picture,
    NaN where no label has an id of the classes.
    """

    confusion: NDArray[np.int64]
    miou_by_image: dict[str, float]


@dataclass(frozen=True)
class Evaluation(Comparison):
    """What a model is worth.

    Attributes:
        reliability: how true the confidences are.
        familiarity: figures of each picture, as ``inference.familiarity`` has them.
    """

    reliability: Reliability
    familiarity: list[dict[str, float]]


def evaluate(segmenter: Segmenter, pictures: Sequence[LabelledImage], flip: bool = False) -> Evaluation:
    """Segment every picture and compare with its labels; ids outside of the class table do not count.

    With ``flip`` the mirrored picture is segmented too, and each pixel gets the class of the more confident view.
    """
    classes = len(segmenter.spec.classes)
    familiarity = []
    trust = Reliability(np.zeros(256, np.int64), np.zeros(256, np.int64))

    def masks_of(image: NDArray[np.uint8], label: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        nonlocal trust
        at_network_size = segmenter.segment_batch([image])[0]
        familiarity.append(figures(at_network_size))
        found = at_network_size.resized((image.shape[1], image.shape[0]))
        if flip:
            found = _of_both_views(segmenter, image, found)
        trust += reliability(label, found.mask, found.confidence, classes)
        return [found.mask]

    (compared,) = compare_with_labels(masks_of, pictures, classes, "evaluate")
    return Evaluation(compared.confusion, compared.miou_by_image, trust, familiarity)


def compare_with_labels(
    masks_of: Callable[[NDArray[np.uint8], NDArray[np.uint8]], Sequence[NDArray[np.uint8]]],
    pictures: Sequence[LabelledImage],
    classes: int,
    title: str,
    leave: bool = True,
) -> list[Comparison]:
    """What each mask (H, W) is worth that ``masks_of`` makes of a picture (H, W, 3) BGR and its labels, over all."""
    found: list[Comparison] = []
    for picture in tqdm(pictures, desc=title, unit="picture", leave=leave, disable=None):
        image, label = picture.read(classes)
        masks = masks_of(image, label)
        found = found or [Comparison(np.zeros((classes, classes), np.int64), {}) for _ in masks]
        for one, mask in zip(found, masks):
            confusion = confusion_matrix(label, mask, classes)
            one.miou_by_image[picture.name] = scores(confusion).miou if confusion.any() else math.nan
            np.add(one.confusion, confusion, out=one.confusion)
    return found


def _of_both_views(segmenter: Segmenter, image: NDArray[np.uint8], found: Segmentation) -> Segmentation:
    mirrored = segmenter(np.ascontiguousarray(image[:, ::-1]))
    as_seen = Segmentation(mirrored.mask[:, ::-1], mirrored.confidence[:, ::-1])
    surer = found.confidence >= as_seen.confidence
    return Segmentation(
        np.where(surer, found.mask, as_seen.mask), np.where(surer, found.confidence, as_seen.confidence)
    )


def worst_images_sheet(
    segmenter: Segmenter, pictures: Sequence[LabelledImage], evaluation: Evaluation, count: int = 6
) -> NDArray[np.uint8]:
    """Image, overlay and truth of the pictures of lowest mIoU, one row each, (H, W, 3) BGR uint8."""
    classes = segmenter.spec.classes
    table = color_lookup_table(classes, "bgr")
    measured = [one for one in pictures if not np.isnan(evaluation.miou_by_image[one.name])]
    worst = sorted(measured, key=lambda picture: evaluation.miou_by_image[picture.name])[:count]
    rows = []
    for picture in worst:
        image, label = picture.read(len(classes))
        shown = (image, overlay(image, segmenter(image).mask, table, 0.6), colorize(label, table))
        rows.append(SheetRow(f"{evaluation.miou_by_image[picture.name]:.3f}  {picture.name}", shown))
    subtitle = f"the {len(rows)} pictures of lowest mIoU, of {len(pictures)}"
    return contact_sheet(segmenter.spec.name, subtitle, ("image", "overlay", "truth"), rows, classes)


def confusion_plot(evaluation: Evaluation, classes: ClassTable, cell_px: int = 44) -> NDArray[np.uint8]:
    """The confusion matrix as percent of each true class, truth downwards, (H, W, 3) BGR uint8."""
    share = evaluation.confusion / np.maximum(evaluation.confusion.sum(axis=1, keepdims=True), 1)
    margin_px = 20 + 9 * max(len(name) for name in classes.names)
    side_px = margin_px + cell_px * len(classes)
    picture = np.full((side_px, side_px, 3), 255, np.uint8)
    heat = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    picture[margin_px:, margin_px:] = np.kron(heat, np.ones((cell_px, cell_px, 1), np.uint8))
    names = np.full((side_px - margin_px, margin_px, 3), 255, np.uint8)
    for index, name in enumerate(classes.names):
        y = index * cell_px + cell_px // 2 + 5
        cv2.putText(names, name, (8, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        for column in range(len(classes)):
            x = margin_px + column * cell_px + 8
            color = (0, 0, 0) if share[index, column] > 0.6 else (255, 255, 255)
            percent = f"{100 * share[index, column]:.0f}"
            cv2.putText(
                picture, percent, (x, margin_px + y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA
            )
    picture[margin_px:, :margin_px] = names
    picture[:margin_px, margin_px:] = cv2.rotate(names, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return picture
