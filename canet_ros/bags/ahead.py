# SPDX-License-Identifier: Apache-2.0
"""Stages of a pipeline: each works ahead of the next one, but only so far."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()
_LOOK_S = 0.1


def ahead(elements: Iterable[T], limit: int, name: str) -> Generator[T, None, None]:
    """The same elements, made in a thread of their own, which is at most ``limit`` ahead.

    What the thread raises is raised here, in its turn. Closing the iterator ends the thread.
    """
    ready: queue.Queue[Any] = queue.Queue(limit)
    stopping = threading.Event()

    def put(element: Any) -> bool:
        while not stopping.is_set():
            try:
                ready.put(element, timeout=_LOOK_S)
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
        except BaseException as error:  # whatever it is, it belongs to whoever takes the elements
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
