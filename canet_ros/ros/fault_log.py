# SPDX-License-Identifier: Apache-2.0
"""Faults that could come with every frame, logged when they come and when they come back."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

_DIGITS = re.compile(r"\d+")
# A fault that was away for so long is news again.
AWAY_S = 10.0
# What a stranger sends can be of any length and a new kind with every message.
_LONGEST_CHARACTERS = 600
_MOST_KINDS = 20


class FaultLog:
    """Logs a fault of each kind from each source when it comes, not while it stays. Safe between threads.

    Two messages are of one kind if they differ in their numbers alone. A source that has more kinds of faults than
    ``_MOST_KINDS`` within ``AWAY_S`` is logged no further meanwhile.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._seen_s: dict[str, dict[str, float]] = {}
        self._advised: set[tuple[str, str]] = set()
        self._last: dict[str, str] = {}
        self._lock = threading.Lock()

    def report(self, source: str, fault: str) -> None:
        """Remember a fault; log it if none of its kind has come from the source for ``AWAY_S``."""
        fault = _shortened(fault)
        kind, now_s = _DIGITS.sub("#", fault), time.monotonic()
        with self._lock:
            self._last[source] = fault
            seen_s = self._seen_s.setdefault(source, {})
            for old in [old for old, time_s in seen_s.items() if now_s - time_s > AWAY_S]:
                del seen_s[old]
            known, full = kind in seen_s, len(seen_s) >= _MOST_KINDS
            if known or not full:
                seen_s[kind] = now_s
            if known or full:
                return
        self._logger.error(f"{source}: {fault} (said once while it lasts; see /diagnostics)")

    def advise(self, source: str, advice: str) -> None:
        """Log what could be better, as a warning, once of each kind; it is no fault."""
        kind = (source, _DIGITS.sub("#", advice))
        with self._lock:
            if kind in self._advised:
                return
            self._advised.add(kind)
        self._logger.warning(f"{source}: {advice}")

    def remember(self, source: str, fault: str) -> None:
        """Make this the source's last fault without logging it; an empty text forgets."""
        with self._lock:
            self._last[source] = _shortened(fault)

    def last(self, source: str) -> str:
        """The source's last fault, or an empty text."""
        with self._lock:
            return self._last.get(source, "")


def _shortened(fault: str) -> str:
    return fault if len(fault) <= _LONGEST_CHARACTERS else f"{fault[:_LONGEST_CHARACTERS]}..."
