# SPDX-License-Identifier: Apache-2.0
"""Whether figures that should stay as they are have grown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

LEAST_SAMPLES = 6


@dataclass(frozen=True)
class Tolerance:
    """How much a figure may grow: by the larger of a number and of a share of what it was."""

    absolute: float
    share: float = 0.0


# A thread or a descriptor that comes with every round is found after a few; caches and the allocator's arenas settle.
TOLERANCES = {
    "memory_mb": Tolerance(20.0, 0.05),
    "descriptors": Tolerance(4),
    "threads": Tolerance(2),
    "latency_ms": Tolerance(20.0, 0.5),
}


@dataclass(frozen=True)
class Verdict:
    """What has become of a figure.

    Attributes:
        first, last: median of its first and of its last third.
        tolerated: what may lie between them.
        drifts: whether it grew by more.
        told: whether there were enough samples to tell.
    """

    first: float
    last: float
    tolerated: float
    drifts: bool
    told: bool

    def __str__(self) -> str:
        if not self.told:
            return f"fewer than {LEAST_SAMPLES} samples: too few to tell"
        grown = f"from {self.first:.4g} to {self.last:.4g}, {self.tolerated:.3g} more are tolerated"
        return f"DRIFTS: {grown}" if self.drifts else grown


def judge(values: Sequence[float], tolerance: Tolerance) -> Verdict:
    """Compare the first third of samples, taken in like conditions, with the last.

    It drifts if the medians lie too far apart and no sample of the last third comes down to the first median: single
    peaks, which are other processes', tell nothing.
    """
    third = max(1, len(values) // 3)
    begin, end = values[:third], values[-third:]
    if len(values) < LEAST_SAMPLES:
        return Verdict(median(begin or [0.0]), median(end or [0.0]), 0.0, drifts=False, told=False)
    first, last = median(begin), median(end)
    tolerated = max(tolerance.absolute, tolerance.share * first)
    return Verdict(first, last, tolerated, last - first > tolerated and min(end) > first, told=True)
