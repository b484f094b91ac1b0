# SPDX-License-Identifier: Apache-2.0
"""Faults that could come with every frame, logged once each."""

from __future__ import annotations

import re
import threading
from typing import Any

_DIGITS = re.compile(r"\d+")


class FaultLog:
    """Logs the first fault of each kind from each source and remembers the last. Safe between threads.

    Two messages are of one kind if they differ in their numbers alone.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._seen: set[tuple[str, str]] = set()
        self._last: dict[str, str] = {}
        self._lock = threading.Lock()

    def report(self, source: str, fault: str) -> None:
        """Remember a fault; log it if it is the source's first of its kind."""
        kind = (source, _DIGITS.sub("#", fault))
        with self._lock:
            self._last[source] = fault
            if kind in self._seen:
                return
            self._seen.add(kind)
        self._logger.error(f"{source}: {fault} (said once; see /diagnostics)")

    def advise(self, source: str, advice: str) -> None:
        """Log what could be better, as a warning, once of each kind; it is no fault."""
        kind = (source, _DIGITS.sub("#", advice))
        with self._lock:
            if kind in self._seen:
                return
            self._seen.add(kind)
        self._logger.warning(f"{source}: {advice}")

    def remember(self, source: str, fault: str) -> None:
        """Make this the source's last fault without logging it; an empty text forgets."""
        with self._lock:
            self._last[source] = fault

    def last(self, source: str) -> str:
        """The source's last fault, or an empty text."""
        with self._lock:
            return self._last.get(source, "")
