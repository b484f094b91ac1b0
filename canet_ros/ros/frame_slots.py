# SPDX-License-Identifier: Apache-2.0
"""Passes the newest item of each source between threads. No queues, so results never become stale."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class ReceivedFrame:
    """A received camera message.

    Attributes:
        message: ``Image``, ``CompressedImage`` or ``VideoMessage``.
        received_s: on ``time.monotonic``'s clock, which never runs backwards.
    """

    message: Any
    received_s: float


class PutResult(enum.Enum):
    """Outcome of ``put``."""

    STORED = enum.auto()
    REPLACED_OLDER = enum.auto()  # stored; the waiting older item is dropped
    REFUSED = enum.auto()  # not stored


class LatestSlots(Generic[Item]):
    """One slot per source; a new item replaces a waiting one."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._changed = threading.Condition()
        self._closed = self._woken = False

    def put(self, source: str, item: Item, admits: Callable[[], bool] | None = None) -> PutResult:
        """Store an item.

        Args:
            admits: called if the slot is empty; False refuses the item. An item that replaces a waiting one is
                admitted without the call.
        """
        with self._changed:
            waiting = source in self._items
            if self._closed or not (waiting or admits is None or admits()):
                return PutResult.REFUSED
            self._items[source] = item
            self._changed.notify()
            return PutResult.REPLACED_OLDER if waiting else PutResult.STORED

    def take_all(self) -> dict[str, Item] | None:
        """Wait for items and empty all slots at once; empty after ``wake``, None: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._woken or self._closed)
            self._woken = False
            items, self._items = self._items, {}
            return None if self._closed else items

    def wake(self) -> None:
        """Make ``take_all`` return, also without items."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> dict[str, Item]:
        """Refuse items from now on and wake ``take_all``; return the items that were waiting."""
        with self._changed:
            self._closed = True
            items, self._items = self._items, {}
            self._changed.notify_all()
            return items


class RateLimit:
    """Limits a rate without falling far below the limit.

    A minimum interval would turn 30 Hz with a limit of 20 Hz into 15 Hz; a schedule that tolerates a delay of up to one
    period gives 20 Hz.
    """

    def __init__(self) -> None:
        self._next_due_s = float("-inf")

    def allows(self, now_s: float, max_rate_hz: float) -> bool:
        """Whether an event may pass now; if so, it is counted. ``max_rate_hz`` 0: no limit."""
        if max_rate_hz <= 0:
            return True
        period_s = 1 / max_rate_hz
        # A due time more than one period ahead stems from a lower limit.
        if 0 < self._next_due_s - now_s <= period_s:
            return False
        on_schedule = 0 <= now_s - self._next_due_s < period_s
        self._next_due_s = (self._next_due_s if on_schedule else now_s) + period_s
        return True
