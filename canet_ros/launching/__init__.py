# SPDX-License-Identifier: Apache-2.0
"""Topics, parameters, recording, RViz and transport, shared by launch files, node and commands.

Imports neither rclpy nor torch, which keeps ``ros2 launch --show-args`` fast; only ``processes`` needs launch_ros.
"""
