# SPDX-License-Identifier: Apache-2.0
"""Checks network and environment for settings that prevent discovery or image transport."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from canet_ros.hints import see_docs
from canet_ros.launching.transport import FASTDDS_VARIABLES, middleware, profile_variable

# netdevice(7)
_SIOCGIFFLAGS, _SIOCGIFADDR, _IFF_RUNNING = 0x8913, 0x8915, 0x40
_MAX_DOMAIN_ID = 232  # RTPS 9.6.2.3: higher ids give invalid ports
_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
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


def _profile_problem(name: str, variables: Mapping[str, str]) -> str:
    path, read = variables.get(name), profile_variable()
    if not path or (name != read and variables.get(read)):
        return ""
    if name != read:
        return f"this ROS 2 distribution reads only {read}: export {read}={path}"
    without = f"Fast DDS uses its defaults, which lose camera images; {see_docs('how-to/lost-images.md')}"
    try:
        ET.parse(path)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): {without}"
    except ET.ParseError as error:
        return f"{path} is not valid XML ({error}): {without}"
    return ""
