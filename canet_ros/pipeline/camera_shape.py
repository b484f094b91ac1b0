# SPDX-License-Identifier: Apache-2.0
"""Input resolutions in the camera's aspect ratio: a squeezed image costs accuracy, more on wider cameras."""

from __future__ import annotations

import functools
import math

from canet_ros.formats import CAMERA as CAMERA
from canet_ros.formats import MAX_SIDE, Resolution

TOLERATED_SQUEEZE = 1.1
_STEP = 16


def camera_resolution(own: Resolution, size: Resolution) -> Resolution:
    """A resolution in the shape of images of ``size``, at the cost of the model's ``own``; all are (width, height).

    Sides are multiples of 16. Of those near by, the one that keeps the shape best and the number of pixels nearly.
    """
    pixels, aspect = own[0] * own[1], size[0] / size[1]
    ideal = (math.sqrt(pixels * aspect), math.sqrt(pixels / aspect))
    widths, heights = (
        [max(_STEP, _STEP * (int(side // _STEP) + more)) for more in (-1, 0, 1, 2)] for side in ideal
    )

    def distance(resolution: Resolution) -> float:
        width, height = resolution
        return 2 * abs(math.log(width / height / aspect)) + abs(math.log(width * height / pixels))

    return min(((width, height) for width in widths for height in heights), key=distance)


def squeeze(resolution: Resolution, size: Resolution) -> float:
    """How much an image of ``size`` is squeezed in one direction to fit into ``resolution``: 1 keeps the shape."""
    ratio = resolution[0] * size[1] / (resolution[1] * size[0])
    return max(ratio, 1 / ratio)


@functools.lru_cache(maxsize=64)
def squeeze_warning(resolution: Resolution, size: Resolution) -> str:
    """Warning about images that are squeezed by more than 10 %, with a resolution that fits; empty: they are not."""
    if squeeze(resolution, size) <= TOLERATED_SQUEEZE:
        return ""
    fitting = camera_resolution(resolution, size)
    if squeeze(fitting, size) > TOLERATED_SQUEEZE or max(fitting) > MAX_SIDE:
        return ""  # tiny, or a strip: no possible resolution keeps its shape
    return (
        f"images of {_text(size)} are squeezed into {_text(resolution)}, which costs accuracy: resolution "
        f"{_text(fitting)}, or 'camera', keeps their aspect ratio at the same cost"
    )


def _text(size: Resolution) -> str:
    return f"{size[0]}x{size[1]}"
