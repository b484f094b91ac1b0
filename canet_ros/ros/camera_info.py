# SPDX-License-Identifier: Apache-2.0
"""Finds the camera_info of an image; without ROS."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from canet_ros.ros.statistics import nanoseconds


class CameraInfoBuffer:
    """The last camera_info messages, searched by stamp. Thread-safe."""

    LENGTH = 60  # two seconds at 30 Hz

    def __init__(self) -> None:
        self._infos: deque[Any] = deque(maxlen=self.LENGTH)
        self._lock = threading.Lock()

    def put(self, info: Any) -> None:
        with self._lock:
            self._infos.append(info)

    def match(self, stamp: Any) -> Any | None:
        """The camera_info with the same stamp, else the last one received; None: none was received."""
        wanted_ns = nanoseconds(stamp)
        with self._lock:
            infos = list(self._infos)
        for info in reversed(infos):
            if nanoseconds(info.header.stamp) == wanted_ns:
                return info
        return infos[-1] if infos else None
