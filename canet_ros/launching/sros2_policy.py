# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy of a node: what it may publish, hear and answer, no more. Needs neither rclpy nor sros2."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from canet_ros.launching.camera_topics import CameraTopics, transported_topic

# What a managed node answers; beside ~/enable all of it is rclpy's.
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
) -> str:
    """A policy file, version 0.2.0 of sros2's policy.xsd, of one enclave with one node, ``canet``.

    Args:
        results: what stands under each camera's results: ``mask``, ``mask/compressed``, ``groups/drivable``.
        namespace: the node's, absolute.
        bond: whether the node has a bond with a lifecycle manager of its namespace.
        enclave: absolute name, as ``ros2 security create_enclave`` takes it.
        clouds: topics that labelled points take: of clouds, of depth images, and those of tf2 where it is asked.
    """
    heard = [*(["/clock"] if use_sim_time else []), *clouds]
    published = [*_PUBLISHED]
    if bond:  # each end hears and says
        heard.append("bond")
        published.append("bond")
    for camera in cameras:
        heard += [
            transported_topic(camera.image, image_transport),
            camera.camera_info,
        ]
        published += [f"{camera.results}/{name}" for name in results]
    return "\n".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>',
            "<!-- SPDX-License-Identifier: Apache-2.0 -->",
            "<!-- The least that the segmentation node needs, as canet policy writes it. -->",
            '<policy version="0.2.0">',
            "  <enclaves>",
            f"    <enclave path={quoteattr(enclave)}>",
            "      <profiles>",
            f'        <profile ns={quoteattr(namespace)} node="canet">',
            *_list("topics", 'subscribe="ALLOW"', "topic", heard),
            *_list("topics", 'publish="ALLOW"', "topic", published),
            *_list("services", 'reply="ALLOW"', "service", _SERVICES),
            "        </profile>",
            "      </profiles>",
            "    </enclave>",
            "  </enclaves>",
            "</policy>",
            "",
        )
    )


def _list(element: str, rule: str, item: str, names: Sequence[str]) -> list[str]:
    return [
        f"          <{element} {rule}>",
        *(f"            <{item}>{escape(name)}</{item}>" for name in names),
        f"          </{element}>",
    ]
