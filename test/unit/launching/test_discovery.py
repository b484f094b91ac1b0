# SPDX-License-Identifier: Apache-2.0
"""Settings and network interfaces that prevent discovery are reported; interfaces are tested in a network namespace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from canet_ros.launching.network import environment_problems, interface_addresses, late_interfaces
from canet_ros.launching.transport import PROFILE_VARIABLES, profile_variable, transport_environment

# ip link set lo up, for machines without ip
LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    fcntl.ioctl(probe, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x8 | 0x40))
"""
NEW_NETWORK = ["unshare", "--map-root-user", "--net"]


def has_namespaces() -> bool:
    try:
        return subprocess.run([*NEW_NETWORK, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_our_transport_environment_has_no_problems() -> None:
    assert environment_problems(transport_environment({"ROS_DOMAIN_ID": "7"})) == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ROS_DOMAIN_ID": "233"}, "expected 0 to 232"),
        ({"ROS_DOMAIN_ID": "-1"}, "expected 0 to 232"),
        ({"ROS_DOMAIN_ID": "one"}, "expected 0 to 232"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "cannot discover each other"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "localhost"}, "expected one of SUBNET"),
        ({profile_variable(): "missing.xml"}, "missing.xml cannot be read (No such file or directory)"),
        ({profile_variable(): "."}, "cannot be read (Is a directory)"),
        ({profile_variable(): __file__}, "is not valid XML"),
        (
            {next(name for name in PROFILE_VARIABLES if name != profile_variable()): "mine.xml"},
            f"reads only {profile_variable()}: export {profile_variable()}=mine.xml",
        ),
    ],
)
def test_problems_of_an_environment(variables: dict[str, str], words: str) -> None:
    (problem,) = environment_problems(variables)
    assert problem.startswith(next(iter(variables)))
    assert words in problem


def test_new_interfaces_and_addresses_are_late() -> None:
    now = interface_addresses()
    if not now:
        pytest.skip("no network interface runs here")
    name, address = next(iter(now.items()))
    assert late_interfaces(now) == ""
    for before in ({**now, name: "192.0.2.77"}, {n: a for n, a in now.items() if n != name}):
        assert f"network interface {name} ({address}) came up after this node started" in late_interfaces(
            before
        )


@pytest.mark.ros
@pytest.mark.skipif(not has_namespaces(), reason="this user may not make a network namespace")
def test_a_node_that_started_before_its_network_logs_it(random_model: Path) -> None:
    pytest.importorskip("rclpy")
    from ros_graph import segmentation_node

    command = [*NEW_NETWORK, sys.executable, "-m", "canet_ros.ros.node"]
    node = f"import os, sys; os.execvp({command[0]!r}, {command!r} + sys.argv[1:])"
    with segmentation_node(random_model, ("-c", node), stale_after=0.5) as process:
        process.wait_for_output("no publisher of /camera/image_raw")
        assert "came up" not in process.output()
        enter = ["nsenter", "--target", str(process.pid), "--user", "--net", "--preserve-credentials"]
        subprocess.run([*enter, sys.executable, "-c", LOOPBACK_UP], check=True)
        process.wait_for_output("network interface lo (127.0.0.1) came up after this node started")
