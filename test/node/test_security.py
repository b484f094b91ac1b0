# SPDX-License-Identifier: Apache-2.0
"""The shipped SROS 2 policy against a node that runs: nothing is missing in it, and nothing more is in it.

Not tested: a node under an enforced policy. ROS 2's pip wheels hold a Fast DDS without security and no sros2.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from ros_graph import Graph, Process, segmentation_node
from sensor_msgs.msg import Image
from waiting import wait_until

from canet_ros.ros.label_info import LabelInfo
from canet_ros.ros.manager_bond import Bond

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
Rights = dict[str, set[str]]


def rights_in(policy: str) -> Rights:
    """Absolute names by what the policy allows: publish, subscribe, reply, request."""
    root = ElementTree.fromstring(policy)
    rights: Rights = {}
    for profile in root.iter("profile"):
        node = f"{profile.get('ns', '').rstrip('/')}/{profile.get('node')}"
        for element in profile:
            names = {absolute(item.text or "", node) for item in element}
            for right, rule in element.items():
                assert rule == "ALLOW"
                rights.setdefault(right, set()).update(names)
    return rights


def absolute(name: str, node: str) -> str:
    if name.startswith("~"):
        return node + name[1:]
    return name if name.startswith("/") else f"{node.rpartition('/')[0]}/{name}"


def rights_of(graph: Graph, namespace: str) -> Rights:
    """What the node really publishes, hears, answers and asks."""
    found = {
        "publish": graph.node.get_publisher_names_and_types_by_node("canet", namespace),
        "subscribe": graph.node.get_subscriber_names_and_types_by_node("canet", namespace),
        "reply": graph.node.get_service_names_and_types_by_node("canet", namespace),
        "request": graph.node.get_client_names_and_types_by_node("canet", namespace),
    }
    return {right: {name for name, _ in names} for right, names in found.items() if names}


def listening_tcp_ports(pid: int) -> list[str]:
    """Addresses on which a process waits for connections, as /proc writes them."""
    held = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            held.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except FileNotFoundError:  # closed meanwhile
            continue
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held]


@pytest.fixture(scope="module")
def node(random_model: Path) -> Process:
    with segmentation_node(random_model, image_topics="['image_raw']") as process:
        yield process


def test_the_policy_allows_what_a_node_with_default_names_does_and_nothing_else(
    graph: Graph, node: Process
) -> None:
    graph.wait_for_state("active")
    graph.connect(graph.camera("/image_raw"), graph.listen(Image, "/segmentation/mask"))
    allowed = rights_in((ROOT / "config" / "sros2_policy.xml").read_text())
    if LabelInfo is None:  # it comes with vision_msgs
        allowed["publish"].remove("/segmentation/label_info")
    if Bond is None:  # it comes with bondpy
        for right in ("publish", "subscribe"):
            allowed[right].remove("/bond")
    if "/canet/get_type_description" not in rights_of(graph, "/")["reply"]:  # Humble
        allowed["reply"].remove("/canet/get_type_description")
    wait_until(lambda: rights_of(graph, "/") == allowed, f"{rights_of(graph, '/')} to be {allowed}")
    graph.clear()


def test_the_node_listens_on_no_tcp_port(graph: Graph, node: Process) -> None:
    graph.wait_for_state("active")
    assert listening_tcp_ports(node.pid) == []
