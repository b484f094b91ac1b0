# SPDX-License-Identifier: Apache-2.0
"""Between two threads: the newest item of each source, and nothing older. Queues that grow are how masks get stale."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class ReceivedFrame:
    """A camera message as it came.

    Attributes:
        message: ``Image`` or ``CompressedImage``.
        received_s: on ``time.monotonic``'s clock, which no bag or clock server can turn back.
    """

    message: Any
    received_s: float


class PutResult(enum.Enum):
    """What became of an item."""

    STORED = enum.auto()
    REPLACED_OLDER = enum.auto()  # stored; the older one that still waited is dropped
    REFUSED = enum.auto()  # not stored


class LatestSlots(Generic[Item]):
    """One slot per source; a new item replaces the one that still waits."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._changed = threading.Condition()
        self._closed = False

    def put(self, source: str, item: Item, admits: Callable[[], bool] | None = None) -> PutResult:
        """Store an item.

        Args:
            admits: asked where nothing waits; if it says no, the item is refused. One that replaces a waiting item
                takes over its admission.
        """
        with self._changed:
            waiting = source in self._items
            if self._closed or not (waiting or admits is None or admits()):
                return PutResult.REFUSED
            self._items[source] = item
            self._changed.notify()
            return PutResult.REPLACED_OLDER if waiting else PutResult.STORED

    def take_all(self) -> dict[str, Item] | None:
        """Wait for items and empty every slot at once, so that no source waits for another; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            if self._closed:
                return None
            items, self._items = self._items, {}
            return items

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> dict[str, Item]:
        """Release whoever waits, for good; what still waited by its source, which nobody will take any more."""
        with self._changed:
            self._closed = True
            items, self._items = self._items, {}
            self._changed.notify_all()
            return items


class RateLimit:
    """Lets events pass so that their rate stays under a limit without falling far below it.

    A plain minimum distance would turn 30 Hz under a limit of 20 Hz into 15 Hz; this keeps to a schedule and forgives
    lateness of up to one period.
    """

    def __init__(self) -> None:
        self._next_due_s = float("-inf")

    def allows(self, now_s: float, max_rate_hz: float) -> bool:
        """Whether an event may pass now; if so, it counts. ``max_rate_hz`` 0 lets all pass."""
        if max_rate_hz <= 0:
            return True
        period_s = 1 / max_rate_hz
        # A due time further off than one period is that of a lower limit, since raised.
        if 0 < self._next_due_s - now_s <= period_s:
            return False
        on_schedule = 0 <= now_s - self._next_due_s < period_s
        self._next_due_s = (self._next_due_s if on_schedule else now_s) + period_s
        return True
