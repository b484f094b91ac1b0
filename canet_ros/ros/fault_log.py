# SPDX-License-Identifier: Apache-2.0
"""Logs faults that may recur with every frame, without repeats."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

_DIGITS = re.compile(r"\d+")
QUIET_S = 10.0  # a fault is logged again after this time without it
# Texts can quote received data: they may be long, and differ with every message.
_MAX_CHARACTERS = 600
_MAX_KINDS = 20


class FaultLog:
    """Logs each kind of fault of each source once, until it has been absent for ``QUIET_S``. Thread-safe.

    Messages that differ only in numbers are of one kind. At most ``_MAX_KINDS`` kinds per source and ``QUIET_S`` are
    logged.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._seen_s: dict[str, dict[str, float]] = {}
        self._advised: set[tuple[str, str]] = set()
        self._last: dict[str, str] = {}
        self._lock = threading.Lock()

    def report(self, source: str, fault: str) -> None:
        """Remember a fault; log it if its kind has been absent for ``QUIET_S``."""
        fault = _shortened(fault)
        kind, now_s = _DIGITS.sub("#", fault), time.monotonic()
        with self._lock:
            self._last[source] = fault
            seen_s = self._seen_s.setdefault(source, {})
            for old in [old for old, time_s in seen_s.items() if now_s - time_s > QUIET_S]:
                del seen_s[old]
            known, full = kind in seen_s, len(seen_s) >= _MAX_KINDS
            if known or not full:
                seen_s[kind] = now_s
            if known or full:
                return
        self._logger.error(f"{source}: {fault} (repeats are suppressed; see /diagnostics)")

    def advise(self, source: str, advice: str) -> None:
        """Log a warning once for each kind; it does not count as a fault."""
        kind = (source, _DIGITS.sub("#", advice))
        with self._lock:
            if kind in self._advised:
                return
            self._advised.add(kind)
        self._logger.warning(f"{source}: {advice}")

    def remember(self, source: str, fault: str) -> None:
        """Set the source's last fault without logging it; empty: clear it."""
        with self._lock:
            self._last[source] = _shortened(fault)

    def last(self, source: str) -> str:
        """The source's last fault; empty: none."""
        with self._lock:
            return self._last.get(source, "")


def _shortened(fault: str) -> str:
    return fault if len(fault) <= _MAX_CHARACTERS else f"{fault[:_MAX_CHARACTERS]}..."
