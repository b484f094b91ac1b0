# SPDX-License-Identifier: Apache-2.0
"""Checks network and environment for settings that prevent discovery or image transport."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import struct
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from canet_ros.hints import see_docs
from canet_ros.launching.transport import (
    CYCLONEDDS_VARIABLE,
    FASTDDS_VARIABLES,
    middleware,
    profile_variable,
)

# netdevice(7)
_SIOCGIFFLAGS, _SIOCGIFADDR, _IFF_RUNNING = 0x8913, 0x8915, 0x40
_MAX_DOMAIN_ID = 232  # RTPS 9.6.2.3: higher ids give invalid ports
_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
_MIN_RECEIVE_BUFFER = re.compile(
    r"""<SocketReceiveBufferSize[^>]*\bmin\s*=\s*["']\s*([\d.]+)\s*([kMG]?)i?B""", re.IGNORECASE
)
DISCOVERY_VARIABLES = (
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "ROS_LOCALHOST_ONLY",
    "ROS_STATIC_PEERS",
    "ROS_DISCOVERY_SERVER",
    "FASTDDS_BUILTIN_TRANSPORTS",
)


def interface_addresses() -> dict[str, str]:
    """IPv4 address of each running network interface that has one."""
    addresses = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            with contextlib.suppress(OSError):  # no address, or just removed
                flags = fcntl.ioctl(probe, _SIOCGIFFLAGS, request)[16:18]
                if struct.unpack("H", flags)[0] & _IFF_RUNNING:
                    addresses[name] = socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
    return addresses


def late_interfaces(at_start: Mapping[str, str]) -> str:
    """Message about interfaces that came up after a process started, which Fast DDS does not use; empty: none."""
    late = [f"{name} ({a})" for name, a in interface_addresses().items() if at_start.get(name) != a]
    if not late:
        return ""
    return (
        f"; network interface {', '.join(late)} came up after this node started, and Fast DDS does not use it: "
        "restart the node once the network is up"
    )


def environment_problems(environment: Mapping[str, str] | None = None) -> list[str]:
    """Problems of an environment (default: this process's), one sentence each."""
    variables = os.environ if environment is None else environment
    problems = []
    if "fastrtps" in middleware(variables):
        found = {name: _profile_problem(name, variables) for name in FASTDDS_VARIABLES}
        problems = [f"{name}: {text}" for name, text in found.items() if text]
    elif "cyclonedds" in middleware(variables) and (text := _socket_buffer_problem(variables)):
        problems = [f"{CYCLONEDDS_VARIABLE}: {text}"]
    domain_id = variables.get("ROS_DOMAIN_ID", "")
    if domain_id and not (domain_id.isdecimal() and int(domain_id) <= _MAX_DOMAIN_ID):
        problems.append(f"ROS_DOMAIN_ID is {domain_id!r}: expected 0 to {_MAX_DOMAIN_ID}")
    reach = variables.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if reach and reach not in _RANGES:
        problems.append(f"ROS_AUTOMATIC_DISCOVERY_RANGE is {reach!r}: expected one of {', '.join(_RANGES)}")
    if reach == "OFF":
        problems.append(
            "ROS_AUTOMATIC_DISCOVERY_RANGE is OFF: processes cannot discover each other; set SUBNET"
        )
    return problems


def _socket_buffer_problem(variables: Mapping[str, str]) -> str:
    """Message if Cyclone DDS is configured to require a larger socket buffer than Linux grants; empty: no."""
    settings = variables.get(CYCLONEDDS_VARIABLE, "")
    if "<" not in settings:  # files
        paths = [Path(path.removeprefix("file://")) for path in settings.split(",") if path]
        settings = "".join(path.read_text(errors="replace") for path in paths if path.is_file())
    demanded = _MIN_RECEIVE_BUFFER.search(settings)
    limit_bytes = receive_buffer_limit_bytes()
    if demanded is None or not limit_bytes:
        return ""
    wanted_bytes = round(float(demanded[1]) * 2 ** {"": 0, "k": 10, "m": 20, "g": 30}[demanded[2].lower()])
    if wanted_bytes <= 2 * limit_bytes:  # Linux doubles the requested size for its bookkeeping
        return ""
    return (
        f"Cyclone DDS does not start: SocketReceiveBufferSize has min={wanted_bytes} bytes, but "
        f"net.core.rmem_max is {limit_bytes}: sudo sysctl -w net.core.rmem_max={wanted_bytes}, or use max instead "
        f"of min; {see_docs('transport.md')}"
    )


def receive_buffer_limit_bytes() -> int:
    """Largest socket receive buffer that a program may request; 0: unknown."""
    try:
        return int(Path("/proc/sys/net/core/rmem_max").read_text())
    except (OSError, ValueError):
        return 0


def _profile_problem(name: str, variables: Mapping[str, str]) -> str:
    path = variables.get(name)
    if not path:
        return ""
    if name != profile_variable():
        other = profile_variable()
        return (
            ""
            if variables.get(other)
            else f"this ROS 2 distribution reads only {other}: export {other}={path}"
        )
    without = f"Fast DDS uses its defaults, which lose camera images; {see_docs('transport.md')}"
    try:
        ET.parse(Path(path))
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): {without}"
    except ET.ParseError as error:
        return f"{path} is not valid XML ({error}): {without}"
    return ""
