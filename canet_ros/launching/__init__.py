# SPDX-License-Identifier: Apache-2.0
"""What launch files, the node and the commands agree on: topics, parameters, recording, RViz, transport.

Neither rclpy nor torch is imported, so that ``ros2 launch --show-args`` is quick; ``processes`` alone needs launch_ros.
"""
