# SPDX-License-Identifier: Apache-2.0
"""Message stamps, counters and durations; without ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

# Durations of a frame. transport: from its stamp to its arrival; decode: of video; wait: in its slot; convert: to
# pixels; inference; publish: from masks to messages; age: from its stamp to its results; encode: of each compressed
# result.
STAGES = ("transport", "decode", "wait", "convert", "inference", "publish", "age", "encode")
# Why received frames were not segmented: replaced by a newer one, over max_rate, over max_age, not decodable, paused by
# ~/enable, no subscriber left or node stopped, failed inference.
DROPS = ("replaced", "over_rate", "too_old", "bad", "paused", "unwanted", "failed")
WINDOW_S = 5.0
_MAX_SAMPLES = 1000
T = TypeVar("T")


def nanoseconds(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` in ns; drivers that do not stamp send 0."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def age_s(stamp: Any, now_ns: int) -> float | None:
    """Seconds from a stamp to now; None without a stamp or with a stamp in the future."""
    stamp_ns = nanoseconds(stamp)
    return (now_ns - stamp_ns) / 1e9 if 0 < stamp_ns <= now_ns else None


class Statistics:
    """Counters and durations of one camera or of the engine. Thread-safe.

    Counters of a camera: ``received``, ``published``, ``DROPS``, ``lost`` (before the node took them, see ``Losses``),
    ``lost_in_transport`` (part of ``lost``), ``missing`` (estimated from stamps), ``qos_problems``, ``bad_clouds``
    (clouds and depth images that could not be used). Counters of the engine: ``batches``, ``frames``, ``failures``,
    ``callback_failures``.

    Attributes:
        last_received_s: when the last image arrived, on ``time.monotonic``'s clock; None: never.
        pending_since_s: when the first image after the last result arrived; None: no image is pending.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._events: dict[str, deque[tuple[float, int]]] = {}
        self._durations_ms: dict[str, deque[tuple[float, float]]] = {}
        self._gaps = StampGaps()
        self._losses = Losses()
        self.last_received_s: float | None = None
        self.pending_since_s: float | None = None

    def count(self, what: str, number: int = 1) -> None:
        if number == 0:
            return
        now_s = time.monotonic()
        with self._lock:
            self._counts[what] += number
            self._events.setdefault(what, deque(maxlen=_MAX_SAMPLES)).append((now_s, number))
            if what == "received":
                self.last_received_s = now_s
                if self.pending_since_s is None:
                    self.pending_since_s = now_s
            elif what == "published":
                self.pending_since_s = None

    def receive(self, stamp: Any, now_ns: int) -> None:
        """Count an image received now (on the node's clock), its transport time and the gap before its stamp."""
        self.count("received")
        age = age_s(stamp, now_ns)
        if age is not None:
            self.time({"transport": age * 1e3})
        self.count("missing", self._gaps.missing_before(nanoseconds(stamp)))

    def number(self, publisher: bytes, number: int) -> int:
        """Record the sequence number of an image at its publisher; return as ``Losses.add_number``."""
        lost = self._losses.add_number(publisher, number)
        self.count("lost", lost)
        return lost

    def lose(self, number: int) -> None:
        """Count images that the middleware reports as lost."""
        self.count("lost_in_transport", number)
        self.count("lost", self._losses.add_event(number))

    def resume(self) -> None:
        """Do not count as missing or lost what was published during a pause or without a subscription."""
        self._gaps, self._losses = StampGaps(), Losses()
        with self._lock:
            self.pending_since_s = None

    def time(self, stage_ms: Mapping[str, float]) -> None:
        """Record durations, in ms, by stage."""
        now_s = time.monotonic()
        with self._lock:
            for stage, duration_ms in stage_ms.items():
                self._durations_ms.setdefault(stage, deque(maxlen=_MAX_SAMPLES)).append((now_s, duration_ms))

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def recent(self, what: str) -> int:
        """Count over the last ``WINDOW_S`` seconds."""
        return sum(number for _, number in self._recent(self._events, what))

    def rate_hz(self, what: str) -> float:
        """Rate over the last ``WINDOW_S`` seconds, from the intervals between events."""
        now_s, times_s = time.monotonic(), [time_s for time_s, _ in self._recent(self._events, what)]
        if len(times_s) < 2:
            return 0.0
        intervals, span_s = len(times_s) - 1, times_s[-1] - times_s[0]
        if now_s - times_s[-1] > 2 * span_s / intervals:  # stopped or slowed down
            span_s = now_s - times_s[0]
        return intervals / max(span_s, 1e-9)

    def percentiles_ms(self, stage: str) -> tuple[float, float] | None:
        """p50 and p95 of a stage over the last ``WINDOW_S`` seconds; None without samples."""
        samples = [duration_ms for _, duration_ms in self._recent(self._durations_ms, stage)]
        if not samples:
            return None
        p50, p95 = np.percentile(samples, (50, 95))
        return float(p50), float(p95)

    def _recent(self, samples: Mapping[str, deque[tuple[float, T]]], name: str) -> list[tuple[float, T]]:
        start_s = time.monotonic() - WINDOW_S
        with self._lock:
            return [sample for sample in samples.get(name, ()) if sample[0] >= start_s]


class Losses:
    """Counts images that were published but never taken by the node, from two sources.

    Sequence numbers: a gap covers images lost in transport and images that a newer one overtook in the middleware's
    queue. Events of the middleware: images lost in transport only, but also those before the first image received.
    Humble's rclpy gives events only. The larger count is reported.
    """

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}
        self._by_numbers = self._by_events = self._lost = 0

    def add_number(self, publisher: bytes, number: int) -> int:
        """Record the sequence number of a received image; return the number of newly lost images.

        Args:
            publisher: its id, which changes when it restarts; empty: unknown.
        """
        last = self._last.get(publisher)
        if last is None:
            if not self._last:
                self._by_numbers = self._by_events
        elif number > last:
            self._by_numbers += number - last - 1
        self._last[publisher] = number
        return self._newly_lost()

    def add_event(self, number: int) -> int:
        """Record an event of the middleware; return the number of newly lost images."""
        self._by_events += number
        return self._newly_lost()

    def _newly_lost(self) -> int:
        before, self._lost = self._lost, max(self._lost, self._by_numbers, self._by_events)
        return self._lost - before


class StampGaps:
    """Estimates missing images from gaps in the stamps of a camera with a constant rate."""

    WINDOW = 15

    def __init__(self) -> None:
        self._last_ns = 0
        self._periods_ns: deque[int] = deque(maxlen=self.WINDOW)

    def missing_before(self, stamp_ns: int) -> int:
        """Number of images missing between the last stamp and this one. A jump back in time resets the estimate."""
        period_ns, self._last_ns = stamp_ns - self._last_ns, stamp_ns
        if stamp_ns == 0 or period_ns == stamp_ns:
            return 0
        if period_ns <= 0:
            self._periods_ns.clear()
            return 0
        self._periods_ns.append(period_ns)
        if len(self._periods_ns) < self.WINDOW:
            return 0
        median_ns = float(np.median(self._periods_ns))
        return round(period_ns / median_ns) - 1 if period_ns > 1.7 * median_ns else 0
