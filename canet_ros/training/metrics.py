# SPDX-License-Identifier: Apache-2.0
"""Metrics of a segmentation, computed from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """Metrics of a segmentation.

    Attributes:
        miou: mean IoU over the classes that occur in the labels.
        iou: by class id; NaN if the class occurs neither in the labels nor in the masks.
        occurring: number of classes that occur in the labels.
    """

    miou: float
    pixel_accuracy: float
    iou: NDArray[np.float64]
    occurring: int

    def iou_by_class(self, names: Sequence[str]) -> dict[str, float | None]:
        """IoU by class name; None in place of NaN, which JSON does not have."""
        return {name: None if np.isnan(iou) else float(iou) for name, iou in zip(names, self.iou)}

    @property
    def coverage_note(self) -> str:
        """Suffix for the mIoU that says over how many classes it is; empty if over all."""
        classes = len(self.iou)
        return "" if self.occurring == classes else f" (over {self.occurring} of {classes} classes)"


def confusion_matrix(
    labels: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int, predicted: int = 0
) -> NDArray[np.int64]:
    """Pixels by (true class, predicted class), (classes, predicted); labels of ``classes`` and above do not count.

    Args:
        predicted: number of predicted classes, if a model has more than the labels; default: ``classes``.
    """
    predicted = predicted or classes
    known = labels < classes
    pairs = labels[known].astype(np.int64) * predicted + prediction[known]
    return np.bincount(pairs, minlength=classes * predicted).reshape(classes, predicted)


def scores(confusion: NDArray[np.int64]) -> Scores:
    """Metrics of a confusion matrix (classes, classes or more), with intersection over union as in PASCAL VOC."""
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0)[: len(hits)] + confusion.sum(axis=1) - hits
    iou = np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)
    occurs = confusion.sum(axis=1) > 0
    miou = float(iou[occurs].mean()) if occurs.any() else 0.0
    return Scores(miou, float(hits.sum() / max(confusion.sum(), 1)), iou, int(occurs.sum()))
