# SPDX-License-Identifier: Apache-2.0
"""What a recording of the segmentation holds and the command that makes it. Needs neither rclpy nor launch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from canet_ros.launching.camera_topics import CameraTopics

# A subscription that comes later than a latched message still gets it; 100 publishers may have latched one each.
_LATCHED: dict[str, str | int] = {
    "history": "keep_last",
    "depth": 100,
    "reliability": "reliable",
    "durability": "transient_local",
}


def recorded_topics(cameras: Sequence[CameraTopics], image_transport: str) -> list[str]:
    """Topics from which a drive can be looked at, segmented again and evaluated.

    Args:
        image_transport: ``raw`` or ``compressed``: the form of the camera images that is recorded.
    """
    topics = []
    for camera in cameras:
        topics += [
            camera.image if image_transport == "raw" else f"{camera.image}/{image_transport}",
            camera.camera_info,
            f"{camera.results}/mask/compressed",
            f"{camera.results}/camera_info",
            f"{camera.results}/label_info",
        ]
    return [*topics, "/tf", "/tf_static"]


def latched_topics(cameras: Sequence[CameraTopics]) -> dict[str, dict[str, str | int]]:
    """QoS of the latched topics in the form of ``ros2 bag record --qos-profile-overrides-path``."""
    return {
        topic: dict(_LATCHED)
        for topic in (*(f"{camera.results}/label_info" for camera in cameras), "/tf_static")
    }


def record_command(topics: Sequence[str], qos_file: Path, bag: str, use_sim_time: bool) -> list[str]:
    """The command line that records the topics, the same on every ROS 2 distribution.

    Args:
        bag: folder to be made; empty: rosbag2 chooses a name by date and time.
    """
    # Topics by name are positional on Humble and --topics since Jazzy; --regex is on all of them.
    command = ["ros2", "bag", "record", "--regex", f"^({'|'.join(topics)})$"]
    command += ["--storage", "mcap", "--qos-profile-overrides-path", str(qos_file)]
    if bag:
        command += ["--output", bag]
    if use_sim_time:
        command.append("--use-sim-time")
    return command
