# SPDX-License-Identifier: Apache-2.0
"""The camera_info that belongs to an image; without ROS."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from canet_ros.ros.statistics import nanoseconds


class CameraInfoBuffer:
    """The last camera_info messages, to be found by stamp. Safe between threads."""

    LENGTH = 60  # two seconds at 30 Hz
    NEAR_NS = 1_000_000_000

    def __init__(self) -> None:
        self._infos: deque[Any] = deque(maxlen=self.LENGTH)
        self._lock = threading.Lock()

    def put(self, info: Any) -> None:
        with self._lock:
            self._infos.append(info)

    def clear(self) -> None:
        with self._lock:
            self._infos.clear()

    def match(self, stamp: Any) -> Any | None:
        """The camera_info of the same stamp; else the last one, if it bears no stamp or one within a second."""
        wanted_ns = nanoseconds(stamp)
        with self._lock:
            infos = list(self._infos)
        for info in reversed(infos):
            if nanoseconds(info.header.stamp) == wanted_ns:
                return info
        if not infos:
            return None
        last_ns = nanoseconds(infos[-1].header.stamp)
        return infos[-1] if last_ns == 0 or abs(last_ns - wanted_ns) <= self.NEAR_NS else None
