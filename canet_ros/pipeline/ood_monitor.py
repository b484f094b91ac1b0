# SPDX-License-Identifier: Apache-2.0
"""Out-of-distribution monitor: compares the confidences of images with those of the training domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.pipeline.segmentation import Segmentation

Range = tuple[float, float]

_SURE = 243  # of 255: 0.95
_LEVELS = np.arange(256) / 255
# Factors on the largest doubt (1 - figure) of the measured images that other in-distribution roads may reach. The
# upper third, with poles, trees and house fronts, differs most between roads.
_MORE_DOUBT = {"mean": 1.1, "tenth": 1.25, "sure": 1.1, "upper": 3.0}
# And on the smallest: below it, one class covers the image with certainty.
_LESS_DOUBT = 5.0
_FRAMES = 10  # that are smoothed over

_MEANING = {
    "mean": "mean confidence",
    "tenth": "confidence reached by 90 % of the pixels",
    "sure": "fraction of confident pixels",
    "upper": "mean confidence in the upper third",
}


def figures(found: Segmentation, counted: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Of one segmentation at the network's resolution, each 0..1; empty if no pixel counts.

    ``mean``: the mean confidence; ``upper``: that of the image's upper third; ``tenth``: the confidence below which a
    tenth of the pixels lie; ``sure``: the share of pixels with 0.95 or more.

    Args:
        counted: (h, w) of the pixels that count; None: all.
    """
    third = max(1, len(found.confidence) // 3)
    upper, lower = (
        _histogram(found.confidence[part], None if counted is None else counted[part])
        for part in (slice(None, third), slice(third, None))
    )
    pixels = upper + lower
    total = float(pixels.sum())
    if total == 0:
        return {}
    mean = float(pixels @ _LEVELS) / total
    return {
        "mean": mean,
        "upper": float(upper @ _LEVELS / upper.sum()) if upper.any() else mean,
        "tenth": float(_LEVELS[np.searchsorted(pixels.cumsum(), 0.1 * total)]),
        "sure": float(pixels[_SURE:].sum()) / total,
    }


def in_distribution_range(images: Sequence[Mapping[str, float]]) -> dict[str, Range]:
    """(lowest, highest) of each figure over in-distribution images, with a margin for other roads."""
    ranges = {}
    for name, factor in _MORE_DOUBT.items():
        doubts = [1 - image[name] for image in images if image]
        low, high = 1 - factor * max(doubts), 1 - min(doubts) / _LESS_DOUBT
        ranges[name] = (round(max(0.0, low), 4), round(high, 4))
    return ranges


class OodMonitor:
    """Compares the figures of a camera's images, smoothed over about ten of them, with the model's range.

    Args:
        known: (lowest, highest) of each figure; empty: the monitor is off.
    """

    def __init__(self, known: Mapping[str, Range]) -> None:
        self._known = known
        self._smoothed: dict[str, float] = {}
        self._frames = 0

    def update(self, found: Segmentation, counted: NDArray[np.bool_] | None) -> None:
        """Add a segmentation; see ``figures``."""
        if not self._known:
            return
        new = figures(found, counted)
        if not new:
            return
        self._frames += 1
        share = max(1 / self._frames, 1 / _FRAMES)
        self._smoothed = {name: (1 - share) * self._smoothed.get(name, 0) + share * new[name] for name in new}

    def values(self) -> dict[str, float]:
        """The figures, smoothed; empty before the first image, or if the monitor is off."""
        return dict(self._smoothed)

    def problem(self) -> str:
        """The figure that is out of range, as a warning; empty: none, or too few images."""
        smoothed = self._smoothed
        if self._frames < _FRAMES:
            return ""
        for name, (low, high) in self._known.items():
            value = smoothed.get(name)
            if value is not None and not low <= value <= high:
                expected = f"at least {low:.2f}" if value < low else f"at most {high:.2f}"
                return (
                    f"input looks out of distribution: {_MEANING.get(name, name)} {value:.2f}, expected {expected}; "
                    "check for night or fog, a dirty or blocked lens, or an upside-down camera"
                )
        return ""


def _histogram(confidence: NDArray[np.uint8], counted: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    where = None if counted is None else counted.astype(np.uint8)
    counts = cv2.calcHist([confidence], [0], where, [256], [0, 256])
    return np.asarray(counts, np.float64).ravel()
