# SPDX-License-Identifier: Apache-2.0
"""Loads a model in a thread: building an engine can take minutes, during which the node must respond."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from canet_ros import activity
from canet_ros.model.class_table import ClassTable
from canet_ros.pipeline.segmenter import Segmenter


@dataclass(frozen=True)
class ModelRequest:
    """A model to load.

    Attributes:
        model: value of the parameter.
        options: for ``Segmenter.load``.
        files: the model's files with their times and sizes, so that a retrained model counts as another one.
        classes: of the model.
        image_shape: (H, W) of the cameras' images, for which a model of the camera's shape is prepared; None: unknown.
    """

    model: str
    folder: Path
    options: Mapping[str, Any]
    files: tuple[tuple[str, int, int], ...]
    classes: ClassTable
    image_shape: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(eq=False)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        self_test: result of the model's self-test, as text.
        problem: why it must not be used; empty: it may. An engine made for the camera's shape is tested late.
    """

    request: ModelRequest
    segmenter: Segmenter
    self_test: str = ""
    problem: str = ""
    took_s: float = 0.0


def require_memory() -> None:
    """Raise MemoryError if the memory available without swapping is less than this process has, with one model."""
    used, available = (
        float(next(line.split()[1] for line in Path(file).read_text().splitlines() if line.startswith(key)))
        for file, key in (("/proc/self/status", "VmRSS:"), ("/proc/meminfo", "MemAvailable:"))
    )
    if available < used:
        raise MemoryError(
            f"{available / 1e3:.0f} MB of memory are available; the node takes {used / 1e3:.0f} MB"
        )


class Loading:
    """A model that is being loaded in a thread of its own. Loading cannot be interrupted, only ignored.

    Args:
        load: loads the model; may raise anything.
        one_at_a_time: shared by the loadings of a node, because two models may not fit into memory.

    Attributes:
        outcome: the model, or why it cannot be loaded; None: it is still being loaded.
        ignored: set it to skip a loading that has not begun.
    """

    def __init__(
        self,
        request: ModelRequest,
        load: Callable[[ModelRequest], LoadedModel],
        one_at_a_time: threading.Lock,
    ) -> None:
        self.request = request
        self.outcome: LoadedModel | BaseException | None = None
        self.ignored = False
        self._load = load
        self._one_at_a_time = one_at_a_time
        self._since_s = time.monotonic()
        # A daemon, so that a hung driver cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="loading", daemon=True)
        self._thread.start()

    @property
    def activity(self) -> str:
        """Current operation, with the duration of the loading; empty once it has ended."""
        if self.outcome is not None:
            return ""
        return f"{activity.now() or 'loading the model'} ({time.monotonic() - self._since_s:.1f} s elapsed)"

    def _run(self) -> None:
        with self._one_at_a_time:
            if self.ignored:
                return
            try:
                loaded = self._load(self.request)
                loaded.took_s = time.monotonic() - self._since_s
                self.outcome = loaded
            except BaseException as error:  # a driver or an engine can raise anything
                self.outcome = error
