# SPDX-License-Identifier: Apache-2.0
"""The segmentation node under Nav2's lifecycle manager, and a costmap with the semantic segmentation layer.

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
from canet_ros.launching.recording import apt_install_command, installed_in

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
    environment = context.environment
    if not installed_in(environment, "nav2_lifecycle_manager"):
        advice = apt_install_command(environment, "nav2_lifecycle_manager")
        log.warning(f"nav2_lifecycle_manager is not installed, so that the node starts by itself: {advice}")
        return []
    bonds = installed_in(environment, "bondpy")
    if not bonds:
        advice = apt_install_command(environment, "bondpy")
        log.warning(
            f"bondpy is not installed, so that the lifecycle manager does not watch the node: {advice}"
        )
    namespace = context.launch_configurations.get("namespace", "")
    return [
        SetLaunchConfiguration("autostart", "false"),
        _manager("lifecycle_manager_segmentation", namespace, "canet", 4.0 if bonds else 0.0),
        *_costmap(context),
    ]


def _costmap(context: LaunchContext) -> list[Action]:
    if context.launch_configurations["costmap"].lower() != "true":
        return []
    for package in ("nav2_costmap_2d", "semantic_segmentation_layer"):
        if not installed_in(context.environment, package):
            ours = package != "nav2_costmap_2d"
            advice = f"build it from {LAYER}" if ours else apt_install_command(context.environment, package)
            log.warning(f"{package} is not installed, so that there is no costmap: {advice}")
            return []
    file = context.launch_configurations["costmap_file"]
    from launch_ros.actions import Node

    return [
        Node(package="nav2_costmap_2d", executable="nav2_costmap_2d", parameters=[file], output="screen"),
        # Nav2's costmap alone, outside a server, has no bond.
        _manager("lifecycle_manager_costmap", "", "costmap/costmap", 0.0),
    ]


def _manager(name: str, namespace: str, managed: str, bond_timeout_s: float) -> Action:
    from launch_ros.actions import Node  # here, because it imports rclpy, which --show-args need not wait for

    return Node(
        package="nav2_lifecycle_manager",
        executable="lifecycle_manager",
        name=name,
        namespace=namespace,
        parameters=[{"autostart": True, "node_names": [managed], "bond_timeout": bond_timeout_s}],
        output="screen",
    )
