# SPDX-License-Identifier: Apache-2.0
"""Tracks long-running operations of this process, for logs and diagnostics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BUILDING = "building the engine, this takes minutes"

_lock = threading.Lock()
_running: list[list[str]] = []


@contextmanager
def doing(description: str) -> Iterator[Callable[[str], None]]:
    """Register an activity for the duration of the block; yields a function that changes its description."""
    entry = [description]
    with _lock:
        _running.append(entry)

    def describe(text: str) -> None:
        entry[0] = text

    try:
        yield describe
    finally:
        with _lock:
            _running[:] = [other for other in _running if other is not entry]


def now() -> str:
    """Description of the activity that started last and is still running; empty: none."""
    with _lock:
        return _running[-1][0] if _running else ""
