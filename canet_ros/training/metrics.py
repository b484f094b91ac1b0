# SPDX-License-Identifier: Apache-2.0
"""Figures of a segmentation, all from one confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """mIoU (mean over the classes that occur), pixel accuracy and IoU per class id (NaN where it never occurs).

    ``occurring`` is the number of classes that the labels have.
    """

    miou: float
    pixel_accuracy: float
    iou: NDArray[np.float64]
    occurring: int

    @property
    def coverage_note(self) -> str:
        """A remark behind the mIoU where some classes take no part in it, or nothing."""
        classes = len(self.iou)
        return "" if self.occurring == classes else f" (over {self.occurring} of {classes} classes)"


def confusion_matrix(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """Pixels by (true class, predicted class), (classes, classes); true ids of ``classes`` and above do not count."""
    known = truth < classes
    pairs = truth[known].astype(np.int64) * classes + prediction[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def scores(confusion: NDArray[np.int64]) -> Scores:
    """Intersection over union as in PASCAL VOC, from a confusion matrix (classes, classes)."""
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    iou = np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)
    occurs = confusion.sum(axis=1) > 0
    miou = float(iou[occurs].mean()) if occurs.any() else 0.0
    return Scores(miou, float(hits.sum() / max(confusion.sum(), 1)), iou, int(occurs.sum()))
