# SPDX-License-Identifier: Apache-2.0
"""Topics of a recording, and the command that records them. Needs neither rclpy nor launch."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from canet_ros.launching.camera_topics import CameraTopics, transported_topic

MIN_FREE_BYTES = 2**30  # 12 s of raw 1280x720 images at 30 Hz


def recorded_topics(cameras: Sequence[CameraTopics], image_transport: str) -> list[str]:
    """Topics needed to review a drive, segment it again and evaluate it.

    Args:
        image_transport: one of ``names.TRANSPORTS``, of the recorded camera images.
    """
    topics = []
    for camera in cameras:
        topics += [
            transported_topic(camera.image, image_transport),
            camera.camera_info,
            f"{camera.results}/mask/compressed",
            f"{camera.results}/camera_info",
            f"{camera.results}/label_info",
        ]
    return [*topics, "/tf", "/tf_static"]


def latched_topics(cameras: Sequence[CameraTopics]) -> dict[str, dict[str, str | int]]:
    """QoS of the latched topics, in the format of ``ros2 bag record --qos-profile-overrides-path``."""
    topics = [*(f"{camera.results}/label_info" for camera in cameras), "/tf_static"]
    # A depth of 100, so that a late subscription receives the latched messages of up to 100 publishers.
    qos: dict[str, str | int] = {
        "history": "keep_last",
        "depth": 100,
        "reliability": "reliable",
        "durability": "transient_local",
    }
    return {topic: dict(qos) for topic in topics}


def is_installed(environment: Mapping[str, str], package: str) -> bool:
    """Whether a ROS package is installed in a workspace of the environment."""
    return any(
        (Path(prefix) / "share/ament_index/resource_index/packages" / package).is_file()
        for prefix in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
        if prefix
    )


def apt_install_command(environment: Mapping[str, str], package: str) -> str:
    """Command that installs the Debian package of a ROS package."""
    distro = environment.get("ROS_DISTRO") or "<distro>"
    return f"sudo apt install ros-{distro}-{package.replace('_', '-')}"


def ros2_bag_problem(environment: Mapping[str, str]) -> str:
    """Why ``ros2 bag`` cannot record here, with a remedy; empty if it can."""
    if not is_installed(environment, "ros2bag") or not shutil.which("ros2", path=environment.get("PATH")):
        return f"ros2 bag is not installed: {apt_install_command(environment, 'ros2bag')}"
    if not is_installed(environment, "rosbag2_storage_mcap"):
        return f"ros2 bag cannot write mcap here: {apt_install_command(environment, 'rosbag2_storage_mcap')}"
    return ""


def folder_problem(bag: str) -> str:
    """Why a bag cannot be created, with a remedy; empty if it can.

    Args:
        bag: folder to create; empty: one in the current folder.
    """
    parent = Path(bag).parent if bag else Path.cwd()
    if bag and os.path.lexists(bag):
        return f"record_path: {bag} already exists: choose a new folder"
    if not parent.is_dir():
        return f"record_path: folder {parent} does not exist: create it, or mount its disk"
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"record_path: {parent} is not writable by this user"
    free_bytes = shutil.disk_usage(parent).free
    if free_bytes < MIN_FREE_BYTES:
        return (
            f"record_path: the disk of {parent} is nearly full: {free_bytes / 2**20:.0f} MiB free, "
            f"a recording needs at least {MIN_FREE_BYTES / 2**20:.0f} MiB"
        )
    return ""


def canet_record_command(topics: Sequence[str], bag: str, use_sim_time: bool) -> list[str]:
    """Command line of ``canet record``, which adopts the QoS of the publishers and needs no QoS file."""
    command = [sys.executable, "-m", "canet_ros.cli", "record", *([bag] if bag else [])]
    command += ["--topics", *topics]
    if use_sim_time:
        command.append("--use-sim-time")
    return command


def record_command(topics: Sequence[str], qos_file: Path, bag: str, use_sim_time: bool) -> list[str]:
    """Command line of ``ros2 bag record`` for every ROS 2 distribution.

    Args:
        bag: folder to create; empty: rosbag2 names one by date and time.
    """
    # Topic names are positional on Humble and --topics since Jazzy; --regex works on all.
    command = ["ros2", "bag", "record", "--regex", f"^({'|'.join(topics)})$"]
    command += ["--storage", "mcap", "--qos-profile-overrides-path", str(qos_file)]
    if bag:
        command += ["--output", bag]
    if use_sim_time:
        command.append("--use-sim-time")
    return command
