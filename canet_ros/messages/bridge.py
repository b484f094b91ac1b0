# SPDX-License-Identifier: Apache-2.0
"""cv_bridge, for the encodings that our own table does not know: one that ROS learns tomorrow works tomorrow.

It is asked only then, and only where it is installed and works: built for another NumPy it raises while it is imported,
or takes its process along. So it is tried in a process of its own first.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TRY = (
    "import array; from cv_bridge import CvBridge; from sensor_msgs.msg import Image; "
    "m = Image(height=2, width=2, step=6, encoding='rgb8', data=array.array('B', range(12))); "
    "p = CvBridge().imgmsg_to_cv2(m, 'bgr8'); assert p[0, 0].tolist() == [2, 1, 0], p"
)
_TIMEOUT_S = 30.0


class BridgeError(ValueError):
    """cv_bridge cannot convert a picture; the message says why."""


@functools.lru_cache(maxsize=1)
def bridge_problem() -> str:
    """Why cv_bridge cannot be used here; empty: it can. The first call takes a second where it is installed."""
    if importlib.util.find_spec("cv_bridge") is None:
        return "cv_bridge is not installed"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY], capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"cv_bridge could not be tried: {error}"
    if tried.returncode == 0:
        return ""
    if tried.returncode < 0:
        return f"cv_bridge ends the process that imports it (signal {-tried.returncode})"
    lines = tried.stderr.strip().splitlines()
    return f"cv_bridge is installed, but does not work: {lines[-1] if lines else 'no reason given'}"


def frame_by_bridge(message: Any) -> NDArray[np.uint8]:
    """The picture in a ``sensor_msgs/Image`` as cv_bridge has it, (H, W, 3) BGR uint8.

    Raises:
        BridgeError: it cannot be used here, or cannot convert this picture.
    """
    problem = bridge_problem()
    if problem:
        raise BridgeError(problem)
    try:
        from cv_bridge import CvBridge

        pixels = np.asarray(CvBridge().imgmsg_to_cv2(message, "bgr8"))
    except Exception as error:  # CvBridgeError, cv2.error, TypeError: whatever its C++ part throws
        raise BridgeError(f"cv_bridge: {' '.join(str(error).split()) or type(error).__name__}") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise BridgeError(
            f"cv_bridge made {pixels.dtype} {pixels.shape} of it, which is no picture in colour"
        )
    return pixels
