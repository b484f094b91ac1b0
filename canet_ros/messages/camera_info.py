# SPDX-License-Identifier: Apache-2.0
"""Check of the age of a camera_info against its image. Does not need ROS."""

from __future__ import annotations

_MAX_GAP_NS = 1_000_000_000


def outdated_problem(info_ns: int, image_ns: int) -> str:
    """A warning if the stamps of a camera_info and its image are more than 1 s apart; else empty.

    The last camera_info is used whatever its age, because a calibration does not change. Stamp 0: unset.
    """
    gap_s = (image_ns - info_ns) / 1e9
    if info_ns == 0 or abs(image_ns - info_ns) <= _MAX_GAP_NS:
        return ""
    direction = "older" if gap_s > 0 else "newer"
    return f"camera_info is {abs(gap_s):.1f} s {direction} than the image; using it anyway"
