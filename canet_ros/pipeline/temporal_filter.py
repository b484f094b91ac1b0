# SPDX-License-Identifier: Apache-2.0
"""Temporal filter against flicker: a pixel changes its class when the new one is certain or persists."""

from __future__ import annotations

import cv2
import numpy as np

from canet_ros.pipeline.segmentation import Segmentation

# Of 255: a class of this confidence is shown at once.
SURE = 150
# Images further apart than this start a new sequence.
LONGEST_GAP_NS = 500_000_000
# An image in which more pixels than this change their class is a cut.
CUT_SHARE = 0.4
# Changes that cover a square of so many pixels at the network's resolution are something that moved, not flicker.
MOVED_PX = 5
_SQUARE = np.ones((MOVED_PX, MOVED_PX), np.uint8)


class TemporalFilter:
    """Hysteresis over the segmentations of one camera's successive images.

    A pixel shows the newest class if that is sure (``SURE``), was found in the image before too, or changes with
    an area around it (``MOVED_PX``); else it keeps the class and the confidence that it shows. So no change comes
    later than one image after it. A cut, a stamp that goes back or jumps ahead, and another size restart the filter.
    """

    def __init__(self) -> None:
        self._shown: Segmentation | None = None
        self._before: Segmentation | None = None
        self._stamp_ns = 0

    def forget(self) -> None:
        """Restart: the next image is shown as it is."""
        self._shown = None

    def __call__(self, found: Segmentation, stamp_ns: int) -> Segmentation:
        """Filter the segmentation of an image; images without a stamp all have 0."""
        shown, before = self._shown, self._before
        gap_ns, self._stamp_ns = stamp_ns - self._stamp_ns, stamp_ns
        self._shown = self._before = found
        follows = 0 < gap_ns <= LONGEST_GAP_NS or stamp_ns == gap_ns == 0
        if shown is None or before is None or not follows or shown.mask.shape != found.mask.shape:
            return found
        settled = found.mask == shown.mask
        if np.count_nonzero(settled) < (1 - CUT_SHARE) * settled.size:
            return found
        settled |= cv2.morphologyEx((~settled).view(np.uint8), cv2.MORPH_OPEN, _SQUARE).view(np.bool_)
        settled |= found.mask == before.mask
        settled |= found.confidence >= SURE
        self._shown = Segmentation(shown.mask.copy(), shown.confidence.copy())
        # A tenth of np.where's time.
        cv2.copyTo(found.mask, settled.view(np.uint8), self._shown.mask)
        cv2.copyTo(found.confidence, settled.view(np.uint8), self._shown.confidence)
        return self._shown
