# SPDX-License-Identifier: Apache-2.0
"""CANet in PyTorch, and a registry for other architectures. Contains no file access and no ROS."""

import importlib

from canet_ros.names import ARCHITECTURES
from canet_ros.network.canet import CANet
from canet_ros.network.segmentation_network import SegmentationNetwork

__all__ = ["CANet", "SegmentationNetwork", "build_network"]


def build_network(
    classes: int, backbone: str, fusion: str, architecture: str, head: str
) -> SegmentationNetwork:
    """Build a randomly initialised network; the choices are those of ``canet_ros.names``.

    Raises:
        ValueError: unknown name, or fewer than two classes.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
    module, _, name = ARCHITECTURES[architecture].partition(".")
    constructor = getattr(importlib.import_module(f"canet_ros.network.{module}"), name)
    network: SegmentationNetwork = constructor(classes, backbone, fusion, architecture, head)
    return network
