# SPDX-License-Identifier: Apache-2.0
"""The thread that encodes compressed results, beside the inference thread."""

from __future__ import annotations

from collections.abc import Callable

from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.frame_slots import LatestSlots, PutResult
from canet_ros.ros.supervised_thread import SupervisedThread


class Encoder:
    """Runs the newest task of each topic; where encoding is slower than inference, older ones are dropped."""

    def __init__(self, faults: FaultLog) -> None:
        self._faults = faults
        self._tasks: LatestSlots[Callable[[], None]] = LatestSlots()
        self._thread = SupervisedThread("encoder", self._run, faults)

    def submit(self, topic: str, task: Callable[[], None]) -> bool:
        """Have a task run; whether it took the place of one that still waited."""
        return self._tasks.put(topic, task) is PutResult.REPLACED_OLDER

    def stop(self, timeout_s: float | None = None) -> bool:
        """Start no further task, and wait for the thread to end; whether it did."""
        self._tasks.close()
        return self._thread.join(timeout_s)

    def _run(self) -> None:
        while (tasks := self._tasks.take_all()) is not None:
            for topic, task in tasks.items():
                if self._tasks.closed:
                    return
                try:
                    task()
                except Exception as error:  # whatever the codec or the middleware throws: the next may work
                    self._faults.report(topic, f"{type(error).__name__}: {error}")
