# SPDX-License-Identifier: Apache-2.0
"""Prefetches the elements of an iterable in a thread, up to a limit."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()
_CHECK_S = 0.1


def prefetch(elements: Iterable[T], limit: int, name: str) -> Generator[T, None, None]:
    """Yield the same elements, produced by a thread that is at most ``limit`` elements ahead.

    An exception of the thread is raised after the elements that precede it. Closing the iterator ends the thread.
    """
    ready: queue.Queue[Any] = queue.Queue(limit)
    stopping = threading.Event()

    def put(element: Any) -> bool:
        while not stopping.is_set():
            try:
                ready.put(element, timeout=_CHECK_S)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        iterator = iter(elements)
        try:
            for element in iterator:
                if not put((element, None)):
                    break
            else:
                put((_END, None))
        except BaseException as error:  # re-raised in the consumer
            put((_END, error))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while True:
            element, error = ready.get()
            if error is not None:
                raise error
            if element is _END:
                return
            yield element
    finally:
        stopping.set()
        thread.join()
