# SPDX-License-Identifier: Apache-2.0
"""Message stamps, and what is counted and timed; without ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import numpy as np

# Of a camera's frame, in order: from its stamp to the node, until its turn, to pixels, in the engine, to messages;
# then from its stamp to its results, and beside all this the encoding of each compressed result.
STAGES = ("transport", "wait", "convert", "inference", "publish", "age", "encode")
# A camera's frames that came and were not segmented: replaced by a newer one before their turn, over max_rate, over
# max_age, no picture, paused by ~/enable, no subscriber any more or the node stopped, failed in inference.
DROPS = ("replaced", "over_rate", "too_old", "bad", "paused", "unwanted", "failed")
WINDOW_S = 5.0
_MAX_SAMPLES = 1000
_MOST_PUBLISHERS = 100  # of one topic that are remembered


def nanoseconds(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` in ns; 0 is what drivers send that do not stamp."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def age_s(stamp: Any, now_ns: int) -> float | None:
    """Seconds from a stamp to now; None where that says nothing: no stamp, or a clock that was turned back."""
    stamp_ns = nanoseconds(stamp)
    return (now_ns - stamp_ns) / 1e9 if 0 < stamp_ns <= now_ns else None


class Statistics:
    """Counts and durations, of one camera or of the engine. Safe between threads.

    What is counted of a camera: ``received``, ``published``, ``DROPS``, images ``lost`` before the node could take them
    (see ``Losses``) and of these ``lost_on_the_way``, images ``missing`` by the stamps' account, ``qos_problems``. Of
    the engine: ``batches``, ``frames`` and ``failures``, ``engine_restarts`` and ``callback_failures``.

    Attributes:
        last_received_s: when the last image came, on ``time.monotonic``'s clock; None: none ever did.
        waiting_since_s: when the first image came of those since the last that was published; None: none has come.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._events: dict[str, deque[tuple[float, int]]] = {}
        self._durations_ms: dict[str, deque[tuple[float, float]]] = {}
        self._gaps = StampGaps()
        self._losses = Losses()
        self._stamps_ns: deque[int] = deque(maxlen=_MAX_SAMPLES)
        self.last_received_s: float | None = None
        self.waiting_since_s: float | None = None

    def count(self, what: str, number: int = 1) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._counts[what] += number
            _append(self._events.setdefault(what, deque(maxlen=_MAX_SAMPLES)), now_s, number)
            if what == "received":
                self.last_received_s = now_s
                if self.waiting_since_s is None:
                    self.waiting_since_s = now_s
            elif what == "published":
                self.waiting_since_s = None

    def receive(self, stamp: Any, now_ns: int) -> None:
        """Count an image that came now on the node's clock, and what its stamp tells."""
        self.count("received")
        age = age_s(stamp, now_ns)
        if age is not None:
            self.time({"transport": age * 1e3})
        stamp_ns = nanoseconds(stamp)
        with self._lock:
            if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:  # a bag that begins again
                self._stamps_ns.clear()
            self._stamps_ns.append(stamp_ns)
        gap = self._gaps.missing_before(stamp_ns)
        if gap:
            self.count("missing", gap)

    def number(self, publisher: bytes, number: int) -> None:
        """Take an image's number at its publisher; see ``Losses``."""
        self._lose(self._losses.numbered(publisher, number))

    def lose(self, number: int) -> None:
        """Count images of which the middleware says that they never came."""
        self.count("lost_on_the_way", number)
        self._lose(self._losses.told(number))

    def _lose(self, number: int) -> None:
        if number:
            self.count("lost", number)

    def begin_anew(self) -> None:
        """Images were not listened for, or not meant to be segmented, for a while: none of them was lost."""
        self._gaps = StampGaps()
        with self._lock:
            self.waiting_since_s = None

    def forget_publishers(self) -> None:
        """Images were not subscribed to for a while: what was published meanwhile was not lost."""
        self._losses = Losses()

    def time(self, stage_ms: Mapping[str, float]) -> None:
        """Add durations, in ms, under their names."""
        now_s = time.monotonic()
        with self._lock:
            for stage, duration_ms in stage_ms.items():
                samples = self._durations_ms.setdefault(stage, deque(maxlen=_MAX_SAMPLES))
                _append(samples, now_s, duration_ms)

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def recent(self, what: str) -> int:
        """How many of the last ``WINDOW_S`` seconds."""
        start_s = time.monotonic() - WINDOW_S
        with self._lock:
            return sum(number for time_s, number in self._events.get(what, ()) if time_s >= start_s)

    def rate_hz(self, what: str) -> float:
        """Of the last ``WINDOW_S`` seconds: by the distances between events, so that a young rate is right too."""
        now_s = time.monotonic()
        with self._lock:
            times_s = [t for t, _ in self._events.get(what, ()) if now_s - t <= WINDOW_S]
        if len(times_s) < 2:
            return 0.0
        intervals, span_s = len(times_s) - 1, times_s[-1] - times_s[0]
        if now_s - times_s[-1] > 2 * span_s / intervals:  # it stopped, or slowed down
            span_s = now_s - times_s[0]
        return intervals / max(span_s, 1e-9)

    def stamped_rate_hz(self) -> float:
        """Of the last ``WINDOW_S`` seconds, by the images' own stamps."""
        with self._lock:
            stamps_ns = [ns for ns in self._stamps_ns if self._stamps_ns[-1] - ns <= WINDOW_S * 1e9]
        return (len(stamps_ns) - 1) * 1e9 / (stamps_ns[-1] - stamps_ns[0]) if len(stamps_ns) > 1 else 0.0

    def percentiles_ms(self, stage: str) -> tuple[float, float] | None:
        """p50 and p95 of a stage over the last ``WINDOW_S`` seconds; None if there was nothing."""
        now_s = time.monotonic()
        with self._lock:
            samples = [ms for t, ms in self._durations_ms.get(stage, ()) if now_s - t <= WINDOW_S]
        if not samples:
            return None
        p50, p95 = np.percentile(samples, (50, 95))
        return float(p50), float(p95)


def _append(samples: deque[tuple[float, Any]], now_s: float, value: float) -> None:
    """Add a sample, and forget those that nobody asks for any more: else memory grows for minutes."""
    while samples and samples[0][0] < now_s - WINDOW_S:
        samples.popleft()
    samples.append((now_s, value))


class Losses:
    """Images that were published and did not come to the node, by two accounts.

    Publishers number what they publish: a gap is what was lost on the way, and what a newer image replaced in the
    middleware's queue before the node took it. The middleware tells by an event, at any time, what was lost on the way;
    also before the first image came, which the numbers cannot tell. Where it does not tell the numbers (rclpy of
    Humble), its events are all that is known.
    """

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}
        self._by_numbers = self._by_events = self._lost = 0

    def numbered(self, publisher: bytes, number: int) -> int:
        """Take the number of an image that came; how many more are known to be lost.

        Args:
            publisher: who numbers, empty where the middleware does not tell; one that began anew is another one.
        """
        last = self._last.get(publisher)
        if last is None:
            if not self._last:
                self._by_numbers = self._by_events
            if len(self._last) >= _MOST_PUBLISHERS:
                self._last.clear()
        elif number > last:
            self._by_numbers += number - last - 1
        self._last[publisher] = number
        return self._more()

    def told(self, number: int) -> int:
        """Take the middleware's event; how many more are known to be lost."""
        self._by_events += number
        return self._more()

    def _more(self) -> int:
        before, self._lost = self._lost, max(self._lost, self._by_numbers, self._by_events)
        return self._lost - before


class StampGaps:
    """Finds images that never came by the gaps that they leave in the stamps of a steady camera."""

    WINDOW = 15

    def __init__(self) -> None:
        self._last_ns = 0
        self._periods_ns: deque[int] = deque(maxlen=self.WINDOW)

    def missing_before(self, stamp_ns: int) -> int:
        """How many images are missing between the last stamp and this one. Time that jumps back starts anew."""
        period_ns, self._last_ns = stamp_ns - self._last_ns, stamp_ns
        if stamp_ns == 0 or period_ns == stamp_ns:
            return 0
        if period_ns <= 0:
            self._periods_ns.clear()
            return 0
        self._periods_ns.append(period_ns)
        if len(self._periods_ns) < self.WINDOW:
            return 0
        usual_ns = float(np.median(self._periods_ns))
        return round(period_ns / usual_ns) - 1 if period_ns > 1.7 * usual_ns else 0
