# SPDX-License-Identifier: Apache-2.0
"""Loads models in a thread: building an engine can take minutes, during which the node must respond."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from canet_ros import activity
from canet_ros.model.class_table import ClassTable
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.ros.parameters import SegmenterChoice


@dataclass(frozen=True)
class ModelRequest:
    """A model to load.

    Attributes:
        files: the model's files with their times and sizes, so that a retrained model counts as another one.
        classes: of the model.
        image_shape: (H, W) of the cameras' images, for which a model of the camera's shape is prepared; None: unknown.
    """

    choice: SegmenterChoice
    max_batch: int
    files: tuple[tuple[str, int, int], ...]
    classes: ClassTable
    image_shape: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(eq=False)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        self_test: result of the model's self-test, as text.
        problem: why it must not be used; empty: it may. An engine made for the camera's shape is tested late.
        memory_mb: growth of the process while it was loaded.
    """

    request: ModelRequest
    segmenter: Segmenter
    self_test: str = ""
    problem: str = ""
    memory_mb: float = 0.0
    took_s: float = 0.0


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def available_mb() -> float:
    """Memory of the machine that processes can get without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024 / 1e6


class ModelLoader:
    """Loads one model at a time in a thread; the newest request wins. Call it from one thread.

    Loading cannot be interrupted. A newer request waits until it ends.

    Args:
        load: loads a requested model; may raise anything.
    """

    def __init__(self, load: Callable[[ModelRequest], LoadedModel]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._wanted: ModelRequest | None = None
        self._since_s = 0.0
        self._outcome: LoadedModel | BaseException | None = None
        self._thread: threading.Thread | None = None

    def request(self, wanted: ModelRequest) -> None:
        """Load a model, unless it is loaded or being loaded."""
        with self._lock:
            loaded = isinstance(self._outcome, LoadedModel) and self._outcome.request == wanted
            if loaded or self._wanted == wanted:
                return
            self._wanted, self._outcome, self._since_s = wanted, None, time.monotonic()
            if self._thread is None:
                # A daemon, so that a hung driver cannot keep the process alive.
                self._thread = threading.Thread(target=self._run, name="loading", daemon=True)
                self._thread.start()

    def outcome(self) -> LoadedModel | BaseException | None:
        """What the last request gave; None: it is pending, or there is none."""
        with self._lock:
            return self._outcome

    def forget(self) -> None:
        """Release the model, also one that is still being loaded."""
        with self._lock:
            self._wanted = self._outcome = None

    def activity(self) -> str:
        """Current operation of a pending request, with its duration; empty: none."""
        with self._lock:
            wanted, since_s = self._wanted, self._since_s
        if wanted is None:
            return ""
        return f"{activity.now() or 'loading the model'} ({time.monotonic() - since_s:.1f} s elapsed)"

    @property
    def busy(self) -> bool:
        """Whether the thread is running, also for an outdated request."""
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._lock:
                wanted, since_s = self._wanted, self._since_s
                if wanted is None:
                    self._thread = None
                    return
            outcome: LoadedModel | BaseException
            try:
                outcome = self._load(wanted)
                outcome.took_s = time.monotonic() - since_s
            except BaseException as caught:  # a driver or an engine can raise anything
                outcome = caught
            with self._lock:
                if self._wanted == wanted:
                    self._wanted, self._outcome = None, outcome
            del outcome  # a model that is no longer wanted must not wait for the next one
