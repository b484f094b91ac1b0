# SPDX-License-Identifier: Apache-2.0
"""Loads models beside the executor: a first start can build an engine for minutes, and the node answers meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from canet_ros.inference import Segmenter, progress
from canet_ros.ros.parameters import SegmenterChoice


@dataclass(frozen=True)
class ModelRequest:
    """What is to be loaded.

    Attributes:
        files: the model's files with their times and sizes; a model that was trained again is another one.
    """

    choice: SegmenterChoice
    max_batch: int
    files: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Outcome:
    """A model that was loaded, or why not; one of the two is None."""

    request: ModelRequest
    segmenter: Segmenter | None
    error: BaseException | None
    took_s: float


class ModelLoader:
    """Loads one model at a time, in a thread of its own; the newest request counts. Call it from one thread.

    Nothing can interrupt a model that is being loaded: where another is wanted meanwhile, it waits for its turn,
    because two at once may not fit on the device.

    Args:
        load: makes a request's segmenter; may throw anything.
    """

    def __init__(self, load: Callable[[ModelRequest], Segmenter]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._wanted: ModelRequest | None = None
        self._since_s = 0.0
        self._outcome: Outcome | None = None
        self._thread: threading.Thread | None = None

    def request(self, wanted: ModelRequest) -> None:
        """Have a model loaded, unless it is there or under way."""
        with self._lock:
            if self._outcome is not None and self._outcome.segmenter and self._outcome.request == wanted:
                return
            if self._wanted == wanted:
                return
            self._wanted, self._outcome, self._since_s = wanted, None, time.monotonic()
            if self._thread is None:
                # A daemon, so that a driver that hangs cannot keep the process from ending.
                self._thread = threading.Thread(target=self._run, name="loading", daemon=True)
                self._thread.start()

    def outcome(self) -> Outcome | None:
        """What became of the last request; None while it is under way, or if there was none."""
        with self._lock:
            return self._outcome

    def forget(self) -> None:
        """Let go of the model, and of one that is being loaded as soon as it is."""
        with self._lock:
            self._wanted = self._outcome = None

    def doing(self) -> str:
        """What is being done for the last request, with the time since; empty: nothing."""
        with self._lock:
            wanted, since_s = self._wanted, self._since_s
        if wanted is None:
            return ""
        return f"{progress.now() or 'loading the model'} ({time.monotonic() - since_s:.1f} s so far)"

    @property
    def busy(self) -> bool:
        """Whether a thread is at it, wanted or not."""
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._lock:
                wanted, since_s = self._wanted, self._since_s
                if wanted is None:
                    self._thread = None
                    return
            segmenter, error = None, None
            try:
                segmenter = self._load(wanted)
            except BaseException as caught:  # a driver, an engine or a plugin can throw anything
                error = caught
            with self._lock:
                if self._wanted == wanted:
                    self._wanted = None
                    self._outcome = Outcome(wanted, segmenter, error, time.monotonic() - since_s)
