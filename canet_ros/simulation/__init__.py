# SPDX-License-Identifier: Apache-2.0
"""A street camera without a street: drawn road scenes with the class of every pixel."""

from canet_ros.simulation.shapes import StreetClass
from canet_ros.simulation.street import StreetDrive, StreetFrame, write_scenes

__all__ = ["StreetClass", "StreetDrive", "StreetFrame", "write_scenes"]
