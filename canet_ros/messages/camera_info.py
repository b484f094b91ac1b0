# SPDX-License-Identifier: Apache-2.0
"""Find the camera_info of an image, and scale it. Does not need ROS."""

from __future__ import annotations

import copy
import threading
from collections import deque
from typing import Any

import numpy as np

from canet_ros.messages.images import ImageMessageError

_MAX_GAP_NS = 1_000_000_000


class CameraInfoBuffer:
    """The last camera_info messages of a topic, searched by stamp. Thread-safe."""

    LENGTH = 60  # two seconds at 30 Hz

    def __init__(self) -> None:
        self._infos: deque[Any] = deque(maxlen=self.LENGTH)
        self._lock = threading.Lock()

    def put(self, info: Any) -> None:
        with self._lock:
            self._infos.append(info)

    def exact(self, stamp: Any) -> Any | None:
        """The newest camera_info with this stamp, a ``builtin_interfaces/Time``; None: not received."""
        with self._lock:
            infos = list(self._infos)
        wanted = (stamp.sec, stamp.nanosec)
        same = (i for i in reversed(infos) if (i.header.stamp.sec, i.header.stamp.nanosec) == wanted)
        return next(same, None)

    def match(self, stamp: Any) -> Any | None:
        """The camera_info with the same stamp, else the last one received; None: none was received."""
        info = self.exact(stamp)
        with self._lock:
            return self._infos[-1] if info is None and self._infos else info


def outdated_problem(info_ns: int, image_ns: int) -> str:
    """A warning if the stamps of a camera_info and its image are more than 1 s apart; else empty.

    The last camera_info is used whatever its age, because a calibration does not change. Stamp 0: unset.
    """
    gap_s = (image_ns - info_ns) / 1e9
    if info_ns == 0 or abs(image_ns - info_ns) <= _MAX_GAP_NS:
        return ""
    direction = "older" if gap_s > 0 else "newer"
    return f"camera_info is {abs(gap_s):.1f} s {direction} than the image; using it anyway"


def scaled_camera_info(info: Any, size: tuple[int, int]) -> Any:
    """The ``sensor_msgs/CameraInfo`` of the camera's image resized to ``size``, (width, height) in pixels.

    K, P, width, height and the ROI are scaled; D, R and the binning are unchanged. The principal point becomes
    ``cx * sx``, as in image_proc's resize node, so that the results fit other images resized in ROS; the exact
    ``(cx + 0.5) * sx - 0.5`` is ``(1 - sx) / 2`` pixels less.

    Raises:
        ImageMessageError: the camera info has no size (an uncalibrated camera), ``size`` is zero, or the result does
            not fit into a message.
    """
    width, height = size
    if info.width == 0 or info.height == 0 or width <= 0 or height <= 0:
        raise ImageMessageError(
            f"camera info of {info.width}x{info.height} pixels cannot be scaled to {width}x{height}: "
            "no side may be 0"
        )
    # The camera's image is its ROI (all zero: the full sensor), binned.
    roi = info.roi
    binning_x, binning_y = max(1, info.binning_x), max(1, info.binning_y)
    scale_x = width * binning_x / (roi.width or info.width)
    scale_y = height * binning_y / (roi.height or info.height)
    scaled = copy.deepcopy(info)
    scaled.width, scaled.height = _unsigned(info.width * scale_x), _unsigned(info.height * scale_y)
    with np.errstate(over="ignore", invalid="ignore"):  # invalid K and P are passed on
        scaled.k = np.asarray(info.k) * np.repeat((scale_x, scale_y, 1.0), 3)
        scaled.p = np.asarray(info.p) * np.repeat((scale_x, scale_y, 1.0), 4)
    scaled.roi.x_offset, scaled.roi.y_offset = (
        _unsigned(roi.x_offset * scale_x),
        _unsigned(roi.y_offset * scale_y),
    )
    scaled.roi.width, scaled.roi.height = _unsigned(roi.width * scale_x), _unsigned(roi.height * scale_y)
    return scaled


def _unsigned(value: float) -> int:
    """Round to a 32-bit field; the middleware would truncate larger values silently."""
    if round(value) > 2**32 - 1:
        raise ImageMessageError(
            f"camera info with sizes, a ROI or a binning that result in {value:.3g} pixels"
        )
    return round(value)
