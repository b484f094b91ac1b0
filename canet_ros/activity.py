# SPDX-License-Identifier: Apache-2.0
"""Tracks long-running operations of this process, for logs and diagnostics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

BUILDING = "building the engine, this takes minutes"

_lock = threading.Lock()
_running: list[str] = []


@contextmanager
def doing(description: str) -> Iterator[None]:
    """Register an activity for the duration of the block."""
    with _lock:
        _running.append(description)
    try:
        yield
    finally:
        with _lock:
            _running.remove(description)


def now() -> str:
    """Description of the activity that started last and is still running; empty: none."""
    with _lock:
        return _running[-1] if _running else ""
