# SPDX-License-Identifier: Apache-2.0
"""What this process is busy with that can take minutes, for whoever is asked why nothing happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

BUILDING = "building the engine, this takes minutes"

_lock = threading.Lock()
_running: list[str] = []


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Say that this is being done meanwhile."""
    with _lock:
        _running.append(what)
    try:
        yield
    finally:
        with _lock:
            _running.remove(what)


def now() -> str:
    """What was begun last and is not done yet; empty: nothing."""
    with _lock:
        return _running[-1] if _running else ""
