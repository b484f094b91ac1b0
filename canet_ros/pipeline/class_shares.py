# SPDX-License-Identifier: Apache-2.0
"""Share of each class in a camera's image, smoothed over time."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

# Images further apart than this multiple of the time constant are not smoothed.
_LONGEST_GAP = 5.0


def class_shares(
    mask: NDArray[np.uint8], counted: NDArray[np.bool_] | None, classes: int
) -> NDArray[np.float32]:
    """Share of each class among the pixels, (classes,) float32 of 0..1; the rest to a sum of 1 is unlabelled.

    Args:
        mask: (H, W).
        counted: (H, W) which pixels count; None: all.
    """
    where = None if counted is None else counted.view(np.uint8)
    counts = cv2.calcHist([mask], [0], where, [256], [0, 256]).reshape(-1)
    return (counts[:classes] / max(float(counts.sum()), 1.0)).astype(np.float32)


class ShareFilter:
    """Exponential smoothing of the shares of one camera's successive images.

    It begins anew with a stamp that does not advance, such as those of cameras without stamps, and after a gap of five
    time constants.

    Attributes:
        time_constant_s: after this time, a change has come through to 63 %; 0: no smoothing.
    """

    def __init__(self, time_constant_s: float = 0.0) -> None:
        self.time_constant_s = time_constant_s
        self._shares: NDArray[np.float32] | None = None
        self._stamp_ns = 0

    def __call__(self, shares: NDArray[np.float32], stamp_ns: int) -> NDArray[np.float32]:
        """The smoothed shares of the image of this stamp."""
        gap_s, self._stamp_ns = (stamp_ns - self._stamp_ns) / 1e9, stamp_ns
        before, self._shares = self._shares, shares
        follows = 0 < gap_s <= _LONGEST_GAP * self.time_constant_s
        if before is not None and follows and before.shape == shares.shape:
            weight = np.float32(1 - math.exp(-gap_s / self.time_constant_s))
            self._shares = before + weight * (shares - before)
        return self._shares
