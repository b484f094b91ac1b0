# SPDX-License-Identifier: Apache-2.0
"""Encodes compressed results in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable

from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.frame_slots import LatestSlots, PutResult
from canet_ros.ros.supervised_thread import SupervisedThread


class Encoder:
    """Runs the newest task of each topic; drops older ones when encoding is slower than inference."""

    def __init__(self, faults: FaultLog) -> None:
        self._faults = faults
        self._tasks: LatestSlots[Callable[[], None]] = LatestSlots()
        self._thread = SupervisedThread("encoder", self._run, faults)

    def submit(self, topic: str, task: Callable[[], None]) -> bool:
        """Queue a task; return whether it replaced a waiting one."""
        return self._tasks.put(topic, task) is PutResult.REPLACED_OLDER

    def stop(self, timeout_s: float | None = None) -> bool:
        """Start no further task and wait for the thread; return whether it ended."""
        self._tasks.close()
        return self._thread.join(timeout_s)

    def _run(self) -> None:
        while (tasks := self._tasks.take_all()) is not None:
            for topic, task in tasks.items():
                if self._tasks.closed:
                    return
                try:
                    task()
                except Exception as error:  # of the codec or the middleware; the next task may work
                    self._faults.report(topic, f"{type(error).__name__}: {error}")
