# SPDX-License-Identifier: Apache-2.0
"""Transforms between frames, from tf2 where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time

from canet_ros.messages.clouds import CloudError
from canet_ros.messages.projection import rigid_transform

try:
    import tf2_ros
except ImportError:
    tf2_ros = None


class Transforms:
    """Listens to tf2 from the first call of ``listen`` on.

    Args:
        parameter: that gives transforms without tf2, for error messages.
    """

    def __init__(self, node: Node, parameter: str) -> None:
        self._node = node
        self._parameter = parameter
        self._buffer: Any = None
        self._listener: Any = None

    def listen(self) -> None:
        if tf2_ros is not None and self._listener is None:
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self._node, spin_thread=False)

    def destroy(self) -> None:
        if self._listener is not None:
            self._listener.unregister()
            self._listener = self._buffer = None

    def find(self, target: str, source: str, stamp: Any = None) -> NDArray[np.float64]:
        """Transform (3, 4) [R|t] of points of ``source`` to ``target``: at the stamp if tf2 has it, else the latest.

        Raises:
            CloudError: no transform is available.
        """
        if source == target:
            return np.eye(3, 4)
        if tf2_ros is None:
            raise CloudError(
                f"no transform from {source!r} to {target!r}: install tf2_ros_py, or set {self._parameter} to "
                "x,y,z,qx,qy,qz,qw"
            )
        buffer, time = self._buffer, Time.from_msg(stamp) if stamp is not None else Time()
        if buffer is None:
            raise CloudError(f"no transform from {source!r} to {target!r} yet: tf2 has not been asked before")
        try:
            if not buffer.can_transform(target, source, time):
                time = Time()
            transform = buffer.lookup_transform(target, source, time).transform
        except tf2_ros.TransformException as error:
            raise CloudError(f"tf2 has no transform from {source!r} to {target!r}: {error}") from error
        move, turn = transform.translation, transform.rotation
        return rigid_transform([move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w])
