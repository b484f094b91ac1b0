# SPDX-License-Identifier: Apache-2.0
"""Starts the segmentation node under Nav2's lifecycle manager, and a costmap with the semantic segmentation layer.

ros2 launch canet_ros nav2_example.launch.py image_topics:="['/camera/color/image_raw']"
"""

from pathlib import Path

import launch.logging
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetLaunchConfiguration,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource

from canet_ros.hints import see_docs
from canet_ros.launching.arguments import TRUE_OR_FALSE
from canet_ros.launching.recording import is_installed

LAUNCH_FOLDER = Path(__file__).resolve().parent
CONFIG = LAUNCH_FOLDER.parent / "config" / "nav2_example.yaml"
log = launch.logging.get_logger("canet_ros")


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "image_topics", default_value="['/camera/color/image_raw']", description="Camera topics"
            ),
            DeclareLaunchArgument(
                "costmap", default_value="true", description="Start a costmap", choices=list(TRUE_OR_FALSE)
            ),
            DeclareLaunchArgument(
                "costmap_file",
                default_value=str(CONFIG),
                description="YAML file with the costmap's parameters",
            ),
            OpaqueFunction(function=_nav2),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / "canet.launch.py"))),
        ]
    )


def _nav2(context: LaunchContext) -> list[Action]:
    from launch_ros.actions import Node  # here to keep --show-args fast: it imports rclpy

    def missing(package: str, consequence: str) -> bool:
        found = is_installed(context.environment, package)
        if not found:
            log.warning(f"{package} is not installed; {consequence}: {see_docs('how-to/nav2.md')}")
        return not found

    def manager(name: str, namespace: str, managed: str, bond_timeout_s: float) -> Action:
        return Node(
            package="nav2_lifecycle_manager",
            executable="lifecycle_manager",
            name=name,
            namespace=namespace,
            parameters=[{"autostart": True, "node_names": [managed], "bond_timeout": bond_timeout_s}],
            output="screen",
        )

    arguments = context.launch_configurations
    if missing("nav2_lifecycle_manager", "the node activates itself"):
        return []
    without_bond = missing("bondpy", "the lifecycle manager does not monitor the node")
    namespace = arguments.get("namespace", "")
    actions: list[Action] = [
        SetLaunchConfiguration("autostart", "false"),
        manager("lifecycle_manager_segmentation", namespace, "canet", 0.0 if without_bond else 4.0),
    ]
    of_costmap = ("nav2_costmap_2d", "semantic_segmentation_layer")
    if arguments["costmap"].lower() == "true" and not any(
        missing(package, "starting without the costmap") for package in of_costmap
    ):
        name, parameters = "nav2_costmap_2d", [arguments["costmap_file"]]
        actions.append(Node(package=name, executable=name, parameters=parameters, output="screen"))
        # Nav2's standalone costmap node has no bond.
        actions.append(manager("lifecycle_manager_costmap", "", "costmap/costmap", 0.0))
    return actions
