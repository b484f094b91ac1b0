# SPDX-License-Identifier: Apache-2.0
"""The network of the paper, in torch, and room for others. No files, no cameras, no ROS."""

import importlib

from canet_ros.names import ARCHITECTURES
from canet_ros.network.canet import CANet
from canet_ros.network.segmentation_network import SegmentationNetwork

__all__ = ["CANet", "SegmentationNetwork", "build_network"]


def build_network(
    classes: int, backbone: str, fusion: str, architecture: str, head: str
) -> SegmentationNetwork:
    """A randomly initialised network by the names of what it is made of.

    Raises:
        ValueError: a name is not one of ``names``, or there are fewer than two classes.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
    module, _, name = ARCHITECTURES[architecture].partition(".")
    built = getattr(importlib.import_module(f"canet_ros.network.{module}"), name)
    network: SegmentationNetwork = built(classes, backbone, fusion, architecture, head)
    return network
