# SPDX-License-Identifier: Apache-2.0
"""Environment for the transport of camera images between processes; see docs/how-to/lost-images.md."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from canet_ros.machine import installed_version
from canet_ros.share import share_folders

FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
CYCLONEDDS_VARIABLE = "CYCLONEDDS_URI"
PROFILE_VARIABLES = (*FASTDDS_VARIABLES, CYCLONEDDS_VARIABLE)
# With "max", Cyclone DDS accepts what Linux grants; with "min", it does not start if Linux grants less.
_CYCLONEDDS_SETTINGS = (
    '<CycloneDDS><Domain id="any"><Internal><SocketReceiveBufferSize max="16MB"/>'
    "</Internal></Domain></CycloneDDS>"
)
# Eight processes with a segment of 32 MB each; one whose segment does not fit falls back to UDP.
ENOUGH_SHARED_MEMORY_BYTES = 8 * 32 * 2**20
# Fast DDS falls back to UDP if its segment does not fit, but crashes if its locks and LTTng's page do not fit either.
MIN_SHARED_MEMORY_BYTES = 64 * 2**10
_DOMAIN_IDS = range(1, 102)  # higher ids collide with Linux's ephemeral ports


def fastdds_profile() -> Path:
    """Path of the installed Fast DDS profile: config/fastdds.xml, or fastdds_small.xml if shared memory is small.

    Raises:
        FileNotFoundError: the profile is not installed.
    """
    name = "fastdds.xml" if free_shared_memory_bytes() >= ENOUGH_SHARED_MEMORY_BYTES else "fastdds_small.xml"
    folders = share_folders("config")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{name} not found in {', '.join(map(str, folders)) or 'any folder'}: reinstall canet_ros"
    )


def free_shared_memory_bytes() -> int:
    """Free space in /dev/shm, bytes; 0 without /dev/shm."""
    try:
        status = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return int(status.f_bavail * status.f_frsize)


def shared_memory_problem() -> str:
    """Message if ROS may crash with SIGBUS because shared memory is full, with the remedy; empty: no."""
    if not os.access("/dev/shm", os.W_OK) or free_shared_memory_bytes() >= MIN_SHARED_MEMORY_BYTES:
        return ""
    return (
        "/dev/shm is full, and ROS may crash with 'Bus error': stop your ROS processes, then "
        "rm /dev/shm/fastdds_* /dev/shm/fastrtps_*; give a container more with --shm-size=512m or --ipc=host"
    )


def middleware(environment: Mapping[str, str]) -> str:
    """ROS middleware selected by an environment, by default ``rmw_fastrtps_cpp``."""
    return environment.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"


def transport_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment (default: this process's) with our settings for Fast DDS or Cyclone DDS.

    Existing settings are not changed.

    Raises:
        FileNotFoundError: the Fast DDS profile is not installed.
    """
    variables = dict(os.environ if environment is None else environment)
    chosen = middleware(variables)
    if "fastrtps" in chosen and not any(variables.get(name) for name in FASTDDS_VARIABLES):
        variables[profile_variable()] = str(fastdds_profile())
    elif "cyclonedds" in chosen and not variables.get(CYCLONEDDS_VARIABLE):
        variables[CYCLONEDDS_VARIABLE] = _CYCLONEDDS_SETTINGS
    return variables


def profile_variable() -> str:
    """Variable with the profile's path: Fast DDS 2 (Humble, Jazzy) knows only the name that Fast DDS 3 deprecates."""
    version = installed_version("rclpy", "ros-rclpy")  # of a ROS installation, of the wheel
    return FASTDDS_VARIABLES[bool(version) and int(version.split(".")[0]) < 8]


def unused_domain_id() -> int:
    """A ROS_DOMAIN_ID that no process on this machine uses, to isolate parallel runs.

    Raises:
        OSError: all are in use.
    """
    for offset in range(len(_DOMAIN_IDS)):
        domain_id = _DOMAIN_IDS[(os.getpid() + offset) % len(_DOMAIN_IDS)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # All participants listen on the domain's discovery port (RTPS 9.6.2.3).
                probe.bind(("", 7400 + 250 * domain_id))
            except OSError:
                continue
            return domain_id
    raise OSError(f"every ROS_DOMAIN_ID from {_DOMAIN_IDS[0]} to {_DOMAIN_IDS[-1]} is in use on this machine")
