# SPDX-License-Identifier: Apache-2.0
"""A node that starts before its network, in a network namespace of the test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from ros_graph import segmentation_node

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


@pytest.mark.ros
@pytest.mark.skipif(not has_namespaces(), reason="this user may not make a network namespace")
def test_a_node_that_was_there_before_its_network_says_so(random_model: Path) -> None:
    command = [*NEW_NETWORK, sys.executable, "-m", "canet_ros.ros.node"]
    node = f"import os, sys; os.execvp({command[0]!r}, {command!r} + sys.argv[1:])"
    with segmentation_node(random_model, ("-c", node), stale_after=0.5) as process:
        process.wait_for_output("no publisher of /camera/image_raw")
        assert "came up" not in process.output()
        enter = ["nsenter", "--target", str(process.pid), "--user", "--net", "--preserve-credentials"]
        subprocess.run([*enter, sys.executable, "-c", LOOPBACK_UP], check=True)
        process.wait_for_output("network interface lo (127.0.0.1) came up after this node started")
