# SPDX-License-Identifier: Apache-2.0
"""When a camera_info is too far from an image to be used without a word; without ROS."""

from __future__ import annotations

_NEAR_NS = 1_000_000_000


def outdated_problem(info_ns: int, image_ns: int) -> str:
    """How far a camera_info's stamp is from that of the image it is used for; empty if within a second.

    A lens does not change, so the last camera_info is used however old it is. Drivers that do not stamp it send 0.
    """
    gap_s = (image_ns - info_ns) / 1e9
    if info_ns == 0 or abs(image_ns - info_ns) <= _NEAR_NS:
        return ""
    direction = "older" if gap_s > 0 else "newer"
    return f"camera_info is {abs(gap_s):.1f} s {direction} than the image; it is used all the same"
