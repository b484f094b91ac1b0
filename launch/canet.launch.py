# SPDX-License-Identifier: Apache-2.0
"""The segmentation node, and on request RViz and a recording.

ros2 launch canet_ros canet.launch.py image_topics:="['/camera/image_raw']" resolution:=480x360
"""

from __future__ import annotations

from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
)

from canet_ros.launching.arguments import launch_arguments

FOLDER = Path(__file__).resolve().parent


def generate_launch_description() -> LaunchDescription:
    given: dict[str, str] = {}

    def remember_given(context: LaunchContext) -> None:
        configurations = context.launch_configurations
        names = [argument.name for argument in launch_arguments()]
        given.update({name: configurations[name] for name in names if name in configurations})

    def start(context: LaunchContext) -> list[Action]:
        # Here, because launch_ros imports rclpy, which `ros2 launch --show-args` need not wait for.
        from canet_ros.launching.processes import processes

        return processes(context, given, FOLDER)

    declarations = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            choices=list(argument.choices) or None,
        )
        for argument in launch_arguments()
    ]
    return LaunchDescription(
        [
            # A second include of this file in the same launch must not take our defaults for arguments it was given.
            PushLaunchConfigurations(),
            OpaqueFunction(function=remember_given),
            *declarations,
            OpaqueFunction(function=start),
            PopLaunchConfigurations(),
        ]
    )
