# SPDX-License-Identifier: Apache-2.0
"""A street camera that needs no camera, the segmentation node and RViz.

ros2 launch canet_ros demo.launch.py
ros2 launch canet_ros demo.launch.py input:=/data/drive.mp4 rviz:=false record:=true
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from canet_ros.launching.arguments import TRUE_OR_FALSE
from canet_ros.launching.transport import PROFILE_VARIABLES, transport_environment

LAUNCH_FOLDER = Path(__file__).resolve().parent


def generate_launch_description() -> LaunchDescription:
    environment = transport_environment()
    camera = Node(
        package="canet_ros",
        executable="street_camera",
        namespace="/camera",
        parameters=[
            {
                "input": ParameterValue(LaunchConfiguration("input"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
            }
        ],
        additional_env={name: environment[name] for name in PROFILE_VARIABLES if name in environment},
        output="screen",
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "input",
                default_value="",
                description="Picture, folder of pictures, video or rosbag2 to show; empty: a drawn street",
            ),
            DeclareLaunchArgument("rate", default_value="10.0", description="Camera images per second, Hz"),
            # These two have other defaults here than in canet.launch.py.
            DeclareLaunchArgument(
                "image_topics", default_value="['/camera/image_raw']", description="The street camera's topic"
            ),
            DeclareLaunchArgument(
                "rviz", default_value="true", description="Show it in RViz", choices=list(TRUE_OR_FALSE)
            ),
            camera,
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / "canet.launch.py"))),
        ]
    )
