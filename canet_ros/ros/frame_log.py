# SPDX-License-Identifier: Apache-2.0
"""Logs outcome and durations of every frame at level debug."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.logging import LoggingSeverity

from canet_ros.ros.statistics import nanoseconds


class FrameLog:
    """Costs one level check per frame while debug is off."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def log(self, camera: str, header: Any, outcome: str, stages_ms: Mapping[str, float]) -> None:
        """Log a frame.

        Args:
            stages_ms: durations by the names of ``statistics.STAGES``.
        """
        if not self._logger.is_enabled_for(LoggingSeverity.DEBUG):
            return
        times = ", ".join(f"{stage} {duration_ms:.1f}" for stage, duration_ms in stages_ms.items())
        self._logger.debug(f"{camera} {nanoseconds(header.stamp) / 1e9:.3f}: {outcome} ({times or '-'} ms)")
