# SPDX-License-Identifier: Apache-2.0
"""What this process is busy with that can take minutes, for whoever is asked why nothing happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BUILDING = "building the engine, this takes minutes"

_lock = threading.Lock()
_running: list[list[str]] = []


@contextmanager
def doing(what: str) -> Iterator[Callable[[str], None]]:
    """Say that this is being done meanwhile; yields a function that says it in other words."""
    entry = [what]
    with _lock:
        _running.append(entry)

    def reword(words: str) -> None:
        entry[0] = words

    try:
        yield reword
    finally:
        with _lock:
            _running[:] = [other for other in _running if other is not entry]


def now() -> str:
    """What was begun last and is not done yet; empty: nothing."""
    with _lock:
        return _running[-1][0] if _running else ""
