# SPDX-License-Identifier: Apache-2.0
"""Prefetches the elements of an iterable in a thread, up to a limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_END: Any = object()


def prefetch(elements: Iterable[T], limit: int, name: str) -> Generator[T, None, None]:
    """Yield the same elements, produced by a thread that is at most ``limit`` elements ahead.

    An exception of the thread is raised after the elements that precede it. Closing the iterator ends the thread.
    """
    iterator = iter(elements)
    pool = ThreadPoolExecutor(1, name)
    ready = deque(pool.submit(next, iterator, _END) for _ in range(limit))
    try:
        while (element := ready.popleft().result()) is not _END:
            ready.append(pool.submit(next, iterator, _END))
            yield element
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(iterator, Generator):
            iterator.close()
