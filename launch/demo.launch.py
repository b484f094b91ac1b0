# SPDX-License-Identifier: Apache-2.0
"""Starts a street camera that publishes synthetic or recorded images, the segmentation node and RViz.

ros2 launch canet_ros demo.launch.py
ros2 launch canet_ros demo.launch.py input:=/data/drive.mp4 use_rviz:=false record:=true
"""

from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import IncludeLaunchDescription, OpaqueFunction
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from canet_ros.launching.arguments import DEMO_ARGUMENTS, declarations
from canet_ros.launching.ending import ends_with_this_process
from canet_ros.launching.transport import PROFILE_VARIABLES, transport_environment

LAUNCH_FOLDER = Path(__file__).resolve().parent


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *declarations(DEMO_ARGUMENTS),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / "canet.launch.py"))),
            # Last, so that nothing is running yet if canet.launch.py rejects its arguments.
            OpaqueFunction(function=_camera),
        ]
    )


def _camera(context: LaunchContext) -> list[Action]:
    from launch_ros.actions import Node  # here to keep --show-args fast: it imports rclpy

    environment = transport_environment(context.environment)
    profile = {name: environment[name] for name in PROFILE_VARIABLES if name in environment}
    return [
        Node(
            package="canet_ros",
            executable="street_camera",
            namespace="/camera",
            parameters=[{name: LaunchConfiguration(name) for name in ("input", "rate")}],
            additional_env={**profile, **ends_with_this_process()},
            output="screen",
            on_exit=_camera_ended,
        )
    ]


def _camera_ended(event: ProcessExited, context: LaunchContext) -> None:
    if event.returncode != 0 and not context.is_shutdown:
        # Only an exception gives `ros2 launch` an exit status other than 0.
        raise RuntimeError(f"the street camera ended with status {event.returncode}")
