# SPDX-License-Identifier: Apache-2.0
"""The environment in which camera-sized images cross between processes; see docs/transport.md."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from canet_ros.machine import installed_version
from canet_ros.share import share_folders

FASTDDS_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
CYCLONEDDS_VARIABLE = "CYCLONEDDS_URI"
PROFILE_VARIABLES = (*FASTDDS_VARIABLES, CYCLONEDDS_VARIABLE)
# "max" asks for as much and takes what Linux grants; with "min", Cyclone DDS does not start where it grants less.
_CYCLONEDDS_SETTINGS = (
    '<CycloneDDS><Domain id="any"><Internal><SocketReceiveBufferSize max="16MB"/>'
    "</Internal></Domain></CycloneDDS>"
)
# Eight processes with a segment of 32 MB each; one whose segment does not fit falls back to UDP.
ENOUGH_SHARED_MEMORY_BYTES = 8 * 32 * 2**20
# Fast DDS goes on by UDP where its segment does not fit; where not even its locks and LTTng's page fit, it cannot.
LEAST_SHARED_MEMORY_BYTES = 64 * 2**10
_DOMAIN_IDS = range(1, 102)  # above, the ports run into those that Linux hands to outgoing connections


def fastdds_profile() -> Path:
    """The installed Fast DDS profile, of a source checkout, a sourced ROS workspace or the environment.

    It is config/fastdds.xml, or config/fastdds_small.xml where shared memory is too small for it.

    Raises:
        FileNotFoundError: it is in none of them.
    """
    name = "fastdds.xml" if free_shared_memory_bytes() >= ENOUGH_SHARED_MEMORY_BYTES else "fastdds_small.xml"
    folders = share_folders("config")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{name} is in none of {', '.join(map(str, folders)) or 'no folder'}: install canet_ros again"
    )


def free_shared_memory_bytes() -> int:
    """Room left in /dev/shm; 0 where there is none."""
    try:
        status = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return int(status.f_bavail * status.f_frsize)


def shared_memory_problem() -> str:
    """Why ROS may be ended by SIGBUS, the signal for memory that cannot be had, and what to do; empty: it will not."""
    if not os.access("/dev/shm", os.W_OK) or free_shared_memory_bytes() >= LEAST_SHARED_MEMORY_BYTES:
        return ""
    return (
        "/dev/shm is full, and ROS may end at once with 'Bus error': with no ROS process of yours running "
        "rm /dev/shm/fastdds_* /dev/shm/fastrtps_*; give a container more with --shm-size=512m or --ipc=host"
    )


def left_shared_memory(folder: Path = Path("/dev/shm")) -> tuple[int, int]:
    """How many of Fast DDS' segments no process maps any more, since theirs was killed, and their bytes.

    Where the memory of others' processes cannot be looked at, their segments count as used.
    """
    mapped: set[str] = set()
    all_seen = True
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            mapped.update(line.split()[-1] for line in maps.read_text().splitlines() if str(folder) in line)
        except PermissionError:
            all_seen = False
        except OSError:  # it has just ended
            continue
    count = size_bytes = 0
    for path in [*folder.glob("fastdds_*"), *folder.glob("fastrtps_*")]:
        try:
            status = path.stat()
        except OSError:
            continue
        just_made = time.time() - status.st_mtime < 60
        lock = status.st_size == 0  # beside a living process's segment too, and mapped by nobody
        if not (lock or just_made or str(path) in mapped) and (all_seen or status.st_uid == os.getuid()):
            count, size_bytes = count + 1, size_bytes + status.st_size
    return count, size_bytes


def middleware(environment: Mapping[str, str]) -> str:
    """The ROS middleware that an environment chooses, ``rmw_fastrtps_cpp`` if none."""
    return environment.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"


def transport_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment (default: this process's) with our settings of the middleware that it chooses.

    Settings that it has already stay; for middlewares other than Fast DDS and Cyclone DDS there are none.

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
    """Fast DDS 3 (since rclpy 8) warns of the name that Fast DDS 2 (Humble, Jazzy) knows alone."""
    version = installed_version("rclpy", "ros-rclpy")  # a ROS installation's, the wheel's
    return FASTDDS_VARIABLES[bool(version) and int(version.split(".")[0]) < 8]


def unused_domain_id() -> int:
    """A ROS_DOMAIN_ID in which nothing on this machine takes part, so that runs side by side do not meet.

    Raises:
        OSError: all are taken.
    """
    for offset in range(len(_DOMAIN_IDS)):
        domain_id = _DOMAIN_IDS[(os.getpid() + offset) % len(_DOMAIN_IDS)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # Everyone in a domain listens at its discovery port (RTPS 9.6.2.3).
                probe.bind(("", 7400 + 250 * domain_id))
            except OSError:
                continue
            return domain_id
    raise OSError(f"every ROS_DOMAIN_ID from {_DOMAIN_IDS[0]} to {_DOMAIN_IDS[-1]} is in use on this machine")
