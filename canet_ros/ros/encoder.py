# SPDX-License-Identifier: Apache-2.0
"""Encodes compressed results in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from canet_ros.ros.fault_log import Fault, FaultLog
from canet_ros.ros.frame_slots import LatestSlots, PutResult


class Encoder:
    """Runs the newest task of each topic; drops older ones when encoding is slower than inference."""

    def __init__(self, faults: FaultLog) -> None:
        self._faults = faults
        self._tasks: LatestSlots[Callable[[], None]] = LatestSlots()
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def submit(self, topic: str, task: Callable[[], None]) -> bool:
        """Queue a task; return whether it replaced a waiting one."""
        return self._tasks.put(topic, task) is PutResult.REPLACED_OLDER

    def stop(self, timeout_s: float) -> bool:
        """Start no further task and wait for the thread; return whether it ended."""
        self._tasks.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (tasks := self._tasks.take_all()) is not None:
            for topic, task in tasks.items():
                if self._tasks.closed:
                    return
                try:
                    task()
                except Exception as error:  # of the codec or the middleware; the next task may work
                    self._faults.report(topic, Fault.ENCODING_FAILED, f"{type(error).__name__}: {error}")
