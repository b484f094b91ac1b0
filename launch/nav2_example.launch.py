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

from canet_ros.launching.arguments import TRUE_OR_FALSE
from canet_ros.launching.recording import apt_install_command, is_installed

LAUNCH_FOLDER = Path(__file__).resolve().parent
CONFIG = LAUNCH_FOLDER.parent / "config" / "nav2_example.yaml"
LAYER = "https://github.com/kiwicampus/semantic_segmentation_layer"
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
            OpaqueFunction(function=_managers),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / "canet.launch.py"))),
        ]
    )


def _managers(context: LaunchContext) -> list[Action]:
    if _missing(context, "nav2_lifecycle_manager", "the node activates itself"):
        return []
    no_bonds = _missing(context, "bondpy", "the lifecycle manager does not monitor the node")
    namespace = context.launch_configurations.get("namespace", "")
    return [
        SetLaunchConfiguration("autostart", "false"),
        _manager("lifecycle_manager_segmentation", namespace, "canet", 0.0 if no_bonds else 4.0),
        *_costmap(context),
    ]


def _costmap(context: LaunchContext) -> list[Action]:
    without = "starting without the costmap"
    if (
        context.launch_configurations["costmap"].lower() != "true"
        or _missing(context, "nav2_costmap_2d", without)
        or _missing(context, "semantic_segmentation_layer", without, f"build it from {LAYER}")
    ):
        return []
    from launch_ros.actions import Node

    file = context.launch_configurations["costmap_file"]
    return [
        Node(package="nav2_costmap_2d", executable="nav2_costmap_2d", parameters=[file], output="screen"),
        # Nav2's standalone costmap node has no bond.
        _manager("lifecycle_manager_costmap", "", "costmap/costmap", 0.0),
    ]


def _missing(context: LaunchContext, package: str, consequence: str, advice: str = "") -> bool:
    if is_installed(context.environment, package):
        return False
    advice = advice or apt_install_command(context.environment, package)
    log.warning(f"{package} is not installed; {consequence}: {advice}")
    return True


def _manager(name: str, namespace: str, managed: str, bond_timeout_s: float) -> Action:
    from launch_ros.actions import Node  # here to keep --show-args fast: it imports rclpy

    return Node(
        package="nav2_lifecycle_manager",
        executable="lifecycle_manager",
        name=name,
        namespace=namespace,
        parameters=[{"autostart": True, "node_names": [managed], "bond_timeout": bond_timeout_s}],
        output="screen",
    )
