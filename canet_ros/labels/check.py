# SPDX-License-Identifier: Apache-2.0
"""Checks of labels: what a person would find on looking at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_SWAPPED_SHARE = 0.5  # of the pixels of both classes; confused classes share far fewer


def swapped_classes(confusion: NDArray[np.int64], names: Sequence[str]) -> Iterator[str]:
    """Name pairs of classes whose labels seem to be swapped.

    Args:
        confusion: (classes, classes), by (label, prediction of a model that knows the classes).
    """
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    for first, second in zip(*np.nonzero(np.triu(np.minimum(share, share.T) > _SWAPPED_SHARE, k=1))):
        yield (
            f"{names[first]} and {names[second]} seem to be swapped: the model sees {names[second]} in "
            f"{share[first, second]:.0%} of the pixels labelled {names[first]}, and {names[first]} in "
            f"{share[second, first]:.0%} of those labelled {names[second]}"
        )
