# SPDX-License-Identifier: Apache-2.0
"""Minimal SROS 2 policy of the node. Needs neither rclpy nor sros2."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from canet_ros.launching.camera_topics import CameraTopics, transported_topic

# All but ~/enable are services of every rclpy lifecycle node.
_SERVICES = (
    "~/enable",
    "~/change_state",
    "~/get_available_states",
    "~/get_available_transitions",
    "~/get_state",
    "~/get_transition_graph",
    "~/describe_parameters",
    "~/get_parameter_types",
    "~/get_parameters",
    "~/list_parameters",
    "~/set_parameters",
    "~/set_parameters_atomically",
    "~/get_type_description",  # since Iron
)
_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Minimal permissions of the segmentation node, written by canet policy. -->
"""
_PUBLISHED = ("/rosout", "/parameter_events", "/diagnostics", "~/transition_event")


def sros2_policy(
    cameras: Sequence[CameraTopics],
    image_transport: str,
    results: Sequence[str],
    namespace: str = "/",
    use_sim_time: bool = False,
    bond: bool = False,
    enclave: str = "/canet",
    clouds: Sequence[str] = (),
    ground: bool = False,
) -> str:
    """Policy file (version 0.2.0 of sros2's policy.xsd) of one enclave with one node, ``canet``.

    Args:
        results: names of result topics per camera: ``mask``, ``mask/compressed``, ``groups/drivable``.
        namespace: absolute namespace of the node.
        bond: whether the node has a bond with a lifecycle manager in its namespace.
        enclave: absolute name, as for ``ros2 security create_enclave``.
        clouds: topics subscribed to for labelled points: clouds, depth images, and those of tf2 if it is used.
        ground: whether the node publishes free space on the ground.
    """
    subscribed = ["/clock", *clouds] if use_sim_time else [*clouds]
    published = [*_PUBLISHED, *(("ground/scan", "ground/grid") if ground else ())]
    if bond:  # both ends publish and subscribe
        subscribed.append("bond")
        published.append("bond")
    for camera in cameras:
        subscribed += [transported_topic(camera.image, image_transport), camera.camera_info]
        published += [f"{camera.results}/{name}" for name in results]
    root = ET.Element("policy", version="0.2.0")
    profiles = ET.SubElement(
        ET.SubElement(ET.SubElement(root, "enclaves"), "enclave", path=enclave), "profiles"
    )
    profile = ET.SubElement(profiles, "profile", ns=namespace, node="canet")
    for kind, access, names in (
        ("topic", "subscribe", subscribed),
        ("topic", "publish", published),
        ("service", "reply", _SERVICES),
    ):
        allowed = ET.SubElement(profile, f"{kind}s", {access: "ALLOW"})
        for name in names:
            ET.SubElement(allowed, kind).text = name
    ET.indent(root)
    return f"{_HEAD}{ET.tostring(root, encoding='unicode')}\n"
