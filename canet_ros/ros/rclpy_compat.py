# SPDX-License-Identifier: Apache-2.0
"""What this package takes from rclpy that is not public or differs between distributions."""

from rclpy._rclpy_pybind11 import RCLError

__all__ = ["RCLError"]
