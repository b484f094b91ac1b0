# SPDX-License-Identifier: Apache-2.0
"""A thread whose death is a fault that is said and mended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from canet_ros.ros.fault_log import FaultLog

# A thread that dies at once each time must not take the machine.
_PAUSE_S = 1.0


class KeptThread:
    """Runs ``work`` until it returns. If it throws instead, the thread is dead until ``look_after`` starts it again.

    Attributes:
        restarts: how often it was started again.
        died_s: when it died last, on ``time.monotonic``'s clock; None: never.
    """

    def __init__(self, name: str, work: Callable[[], None], faults: FaultLog) -> None:
        self.restarts = 0
        self.died_s: float | None = None
        self._name = name
        self._work = work
        self._faults = faults
        self._returned = False
        self._thread = self._started()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the thread to end; whether it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def look_after(self) -> None:
        """Start a dead thread again."""
        if self._thread.is_alive() or self._returned:
            return
        if self.died_s is None:  # without a word: nothing in Python does that, but it must not go unseen
            self._has_died("it ended")
        if time.monotonic() - (self.died_s or 0.0) >= _PAUSE_S or self.restarts == 0:
            self.restarts += 1
            self._thread = self._started()

    def _started(self) -> threading.Thread:
        # A daemon, so that a long inference cannot keep the process from ending.
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        try:
            self._work()
            self._returned = True
            # Whose method it is holds this object: a circle, in which an engine would stay until Python collects it.
            self._work = _nothing
        except BaseException as error:  # also what is no Exception, as a library's sys.exit
            self._has_died(f"{type(error).__name__}: {error}")

    def _has_died(self, why: str) -> None:
        self.died_s = time.monotonic()
        self._faults.report(self._name, f"the {self._name} thread died and is started again: {why}")


def _nothing() -> None:
    """What is left to do."""
