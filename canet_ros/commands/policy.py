# SPDX-License-Identifier: Apache-2.0
"""``canet policy``: print the SROS 2 policy of a node with given launch arguments; see docs/security.md."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from canet_ros.formats import parse_groups
from canet_ros.launching.arguments import launch_arguments, parameters_in_use, unknown_arguments
from canet_ros.launching.camera_topics import absolute_topic, camera_topics
from canet_ros.launching.sros2_policy import sros2_policy
from canet_ros.pipeline.outputs import output_names, point_outputs

_NAME = re.compile(r"/|(/[A-Za-z_][A-Za-z0-9_]*)+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="NAME:=VALUE",
        help="arguments of canet.launch.py: image_topics, namespace, params_file and so on",
    )
    parser.add_argument(
        "--enclave", default="/canet", metavar="PATH", help="name of the enclave (default: /canet)"
    )


def run(arguments: argparse.Namespace) -> int:
    given = dict(_name_and_value(word) for word in arguments.arguments)
    known = [argument.name for argument in launch_arguments()]
    problems = unknown_arguments(given, known)
    if problems:
        raise ValueError("; ".join(problems))
    namespace = "/" + given.get("namespace", "").strip("/")
    node = f"{namespace.rstrip('/')}/canet"
    file = given.get("params_file", "")
    in_use = parameters_in_use(given, Path(file).expanduser().read_text() if file else "", node)
    images = [absolute_topic(topic, node) for topic in in_use["image_topics"]]
    groups = parse_groups(in_use["groups"])
    results = [*output_names(groups)]
    if not arguments.enclave.startswith("/"):
        raise ValueError(f"--enclave {arguments.enclave!r}: expected an absolute name like /canet")
    clouds, depths = (
        [absolute_topic(topic, node) for topic in in_use[name] if topic]
        for name in ("cloud_topics", "depth_topics")
    )
    if clouds or depths:
        results += point_outputs(groups)
    ground = bool(in_use["ground_group"])
    to_find = len(clouds) - sum(map(bool, in_use["cloud_extrinsics"]))
    if to_find > 0 or (ground and sum(map(bool, in_use["camera_extrinsics"])) < len(images)):
        clouds += ["/tf", "/tf_static"]
    for name in (namespace, arguments.enclave):
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a valid ROS name: expected letters, digits, underscores and slashes"
            )
    policy = sros2_policy(
        camera_topics(images, in_use["results_name"]),
        in_use["image_transport"],
        results,
        namespace,
        bool(in_use.get("use_sim_time")),
        float(in_use["bond_timeout"]) > 0,
        arguments.enclave,
        clouds + depths,
        ground,
    )
    print(policy, end="")
    return 0


def _name_and_value(word: str) -> tuple[str, str]:
    name, separator, value = word.partition(":=")
    if not separator:
        raise ValueError(f"expected NAME:=VALUE, as for ros2 launch, got {word!r}")
    return name, value
