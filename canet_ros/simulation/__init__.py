# SPDX-License-Identifier: Apache-2.0
"""Synthetic road scenes with ground truth for every pixel."""

from canet_ros.simulation.shapes import StreetClass
from canet_ros.simulation.street import StreetDrive, StreetFrame, write_scenes

__all__ = ["StreetClass", "StreetDrive", "StreetFrame", "write_scenes"]
