# SPDX-License-Identifier: Apache-2.0
"""Starts the segmentation node and, optionally, RViz and a recording.

ros2 launch canet_ros canet.launch.py image_topics:="['/camera/image_raw']" resolution:=480x360
"""

from __future__ import annotations

from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction, PopLaunchConfigurations, PushLaunchConfigurations

from canet_ros.launching.arguments import declarations, launch_arguments

FOLDER = Path(__file__).resolve().parent


def generate_launch_description() -> LaunchDescription:
    given: dict[str, str] = {}

    def remember_given(context: LaunchContext) -> None:
        configurations = context.launch_configurations
        names = [argument.name for argument in launch_arguments()]
        given.update({name: configurations[name] for name in names if name in configurations})

    def start(context: LaunchContext) -> list[Action]:
        # Imported here to keep `ros2 launch --show-args` fast: launch_ros imports rclpy.
        from canet_ros.launching.processes import launch_actions

        return launch_actions(context, given, FOLDER)

    return LaunchDescription(
        [
            # So that a second include of this file does not take these defaults for given arguments.
            PushLaunchConfigurations(),
            OpaqueFunction(function=remember_given),
            *declarations(launch_arguments()),
            OpaqueFunction(function=start),
            PopLaunchConfigurations(),
        ]
    )
