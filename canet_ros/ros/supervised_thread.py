# SPDX-License-Identifier: Apache-2.0
"""Reports and restarts a worker thread that crashed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from canet_ros.ros.fault_log import FaultLog

_RESTART_PAUSE_S = 1.0


class SupervisedThread:
    """Runs ``work`` until it returns, and again whenever it raises.

    Attributes:
        crashed_s: last crash, on ``time.monotonic``'s clock; None: never.
    """

    def __init__(self, name: str, work: Callable[[], None], faults: FaultLog) -> None:
        self.crashed_s: float | None = None
        self._name = name
        self._faults = faults
        # A daemon, so that a long inference cannot keep the process alive. This object keeps no reference to ``work``,
        # whose cycle would delay the release of the engine until garbage collection.
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the thread; return whether it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self, work: Callable[[], None]) -> None:
        while True:
            try:
                work()
                return
            except BaseException as error:  # also a library's sys.exit
                self.crashed_s = time.monotonic()
                text = f"{type(error).__name__}: {error}"
            self._faults.report(self._name, f"the {self._name} thread crashed and was restarted: {text}")
            time.sleep(_RESTART_PAUSE_S)
