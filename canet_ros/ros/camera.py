# SPDX-License-Identifier: Apache-2.0
"""All that belongs to one camera: subscriptions, publishers, statistics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from canet_ros.ros.camera_input import CameraInput
from canet_ros.ros.camera_topics import CameraTopics
from canet_ros.ros.fault_log import FaultLog
from canet_ros.ros.frame_slots import RateLimit
from canet_ros.ros.outputs import CameraOutputs
from canet_ros.ros.statistics import Statistics


class Camera:
    """A camera, named by its resolved image topic.

    Args:
        transport: ``raw`` or ``compressed``.
        on_image: takes the camera and each message that comes.
    """

    def __init__(
        self,
        node: Node,
        topics: CameraTopics,
        transport: str,
        on_image: Callable[[Camera, Any], None],
        faults: FaultLog,
    ) -> None:
        self.name = topics.image
        self.statistics = Statistics()
        self.rate_limit = RateLimit()
        self._faults = faults
        self.input = CameraInput(
            node,
            topics,
            transport,
            on_image=lambda message: on_image(self, message),
            on_qos_problem=self._on_qos_problem,
            on_lost=lambda number: self.statistics.count("lost", number),
        )
        self.outputs = CameraOutputs(
            node,
            topics.results,
            self.statistics,
            on_qos_problem=self._on_qos_problem,
            on_bad_camera_info=lambda problem: faults.report(self.name, problem),
        )

    def follow_subscribers(self) -> None:
        """Listen to the camera while somebody listens to its results."""
        if not self.outputs.wanted():
            self.input.unsubscribe()
        elif self.input.subscribed_since_s is None:
            self.statistics.forget_stamps()
            self.input.subscribe()

    def silent_s(self) -> float | None:
        """How long no image has come although one is listened for, in s; None while nobody listens."""
        listening_since_s = self.input.subscribed_since_s
        if listening_since_s is None:
            return None
        return time.monotonic() - max(listening_since_s, self.statistics.last_received_s or 0.0)

    def destroy(self) -> None:
        self.input.unsubscribe()
        self.outputs.destroy()

    def _on_qos_problem(self, problem: str) -> None:
        self.statistics.count("qos_problems")
        self._faults.report(self.name, problem)
