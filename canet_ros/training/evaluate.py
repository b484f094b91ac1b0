# SPDX-License-Identifier: Apache-2.0
"""Evaluate a model as it is deployed: through ``Segmenter``, on any engine and precision, at the images' own size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from canet_ros.pipeline.contact_sheet import SheetRow, contact_sheet
from canet_ros.pipeline.ood_monitor import figures
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, colorize, overlay
from canet_ros.training.calibration import Reliability, reliability
from canet_ros.training.dataset import LabelledImage
from canet_ros.training.metrics import confusion_matrix, scores


@dataclass(frozen=True)
class Comparison:
    """Masks compared with labels.

    Attributes:
        confusion: over all images, (classes, predicted classes), by (label, prediction).
        miou_by_image: by image name; NaN if its labels have no id of the classes.
    """

    confusion: NDArray[np.int64]
    miou_by_image: dict[str, float]


@dataclass(frozen=True)
class Evaluation(Comparison):
    """Result of ``evaluate``.

    Attributes:
        reliability: of the confidences.
        ood_statistics: of each image, the confidence statistics that the OOD monitor compares.
    """

    reliability: Reliability
    ood_statistics: list[dict[str, float]]


def evaluate(segmenter: Segmenter, images: Sequence[LabelledImage]) -> Evaluation:
    """Segment every image and compare it with its labels; ids outside of the class table do not count."""
    classes = len(segmenter.spec.classes)
    ood_statistics = []
    total = Reliability(np.zeros(256, np.int64), np.zeros(256, np.int64))

    def predict(image: NDArray[np.uint8], label: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        nonlocal total
        at_network_size = segmenter.infer([image])[0]
        ood_statistics.append(figures(at_network_size))
        segmentation = at_network_size.resized((image.shape[1], image.shape[0]))
        total += reliability(label, segmentation.mask, segmentation.confidence, classes)
        return [segmentation.mask]

    (comparison,) = compare_with_labels(predict, images, classes, "evaluate")
    return Evaluation(comparison.confusion, comparison.miou_by_image, total, ood_statistics)


def compare_with_labels(
    predict: Callable[[NDArray[np.uint8], NDArray[np.uint8]], Sequence[NDArray[np.uint8]]],
    images: Sequence[LabelledImage],
    classes: int,
    title: str,
    leave: bool = True,
    predicted: int = 0,
) -> list[Comparison]:
    """Compare the masks of one or several predictors with the labels of all images.

    Args:
        predict: returns masks (H, W), one per predictor, for an image (H, W, 3) BGR and its labels.
        title: of the progress bar.
        leave: whether the progress bar stays on the screen.
        predicted: see ``confusion_matrix``.
    """
    shape = (classes, predicted or classes)
    comparisons: list[Comparison] = []
    for labelled in tqdm(images, desc=title, unit="image", leave=leave, disable=None):
        image, label = labelled.read(classes)
        masks = predict(image, label)
        comparisons = comparisons or [Comparison(np.zeros(shape, np.int64), {}) for _ in masks]
        for comparison, mask in zip(comparisons, masks):
            confusion = confusion_matrix(label, mask, classes, predicted)
            comparison.miou_by_image[labelled.name] = scores(confusion).miou if confusion.any() else math.nan
            np.add(comparison.confusion, confusion, out=comparison.confusion)
    return comparisons


def worst_images_sheet(
    segmenter: Segmenter, images: Sequence[LabelledImage], evaluation: Evaluation, count: int = 6
) -> NDArray[np.uint8]:
    """Image, overlay and labels of the images of lowest mIoU, one row each, (H, W, 3) BGR uint8."""
    classes = segmenter.spec.classes
    table = color_lookup_table(classes, "bgr")
    miou = evaluation.miou_by_image
    worst = sorted((one for one in images if not np.isnan(miou[one.name])), key=lambda one: miou[one.name])
    rows = []
    for labelled in worst[:count]:
        image, label = labelled.read(len(classes))
        cells = (image, overlay(image, segmenter(image).mask, table, 0.6), colorize(label, table))
        rows.append(SheetRow(f"{miou[labelled.name]:.3f}  {labelled.name}", cells))
    subtitle = f"the {len(rows)} images of lowest mIoU, of {len(images)}"
    return contact_sheet(segmenter.spec.name, subtitle, ("image", "overlay", "labels"), rows, classes)
