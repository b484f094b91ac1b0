# SPDX-License-Identifier: Apache-2.0
"""Starts the segmentation node under Nav2's lifecycle manager, and a costmap with the semantic segmentation layer.

ros2 launch canet_ros nav2_example.launch.py image_topics:="['/camera/color/image_raw']"
"""

from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import IncludeLaunchDescription, OpaqueFunction, SetLaunchConfiguration
from launch.launch_description_sources import PythonLaunchDescriptionSource

from canet_ros.launching.arguments import TRUE_OR_FALSE, Argument, declarations

LAUNCH_FOLDER = Path(__file__).resolve().parent
CONFIG = LAUNCH_FOLDER.parent / "config" / "nav2_example.yaml"
ARGUMENTS = (
    Argument("image_topics", "['/camera/color/image_raw']", "Camera topics"),
    Argument("costmap", "true", "Start a costmap", TRUE_OR_FALSE),
    Argument("costmap_file", str(CONFIG), "YAML file with the costmap's parameters"),
)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *declarations(ARGUMENTS),
            OpaqueFunction(function=_nav2),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / "canet.launch.py"))),
        ]
    )


def _nav2(context: LaunchContext) -> list[Action]:
    from launch_ros.actions import Node  # here to keep --show-args fast: it imports rclpy

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
    actions: list[Action] = [
        SetLaunchConfiguration("autostart", "false"),
        manager("lifecycle_manager_segmentation", arguments.get("namespace", ""), "canet", 4.0),
    ]
    if arguments["costmap"].lower() == "true":
        name, parameters = "nav2_costmap_2d", [arguments["costmap_file"]]
        actions.append(Node(package=name, executable=name, parameters=parameters, output="screen"))
        # Nav2's standalone costmap node has no bond.
        actions.append(manager("lifecycle_manager_costmap", "", "costmap/costmap", 0.0))
    return actions
