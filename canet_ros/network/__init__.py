# SPDX-License-Identifier: Apache-2.0
"""The network of the paper, in torch. No files, no cameras, no ROS."""

from canet_ros.network.backbones import BACKBONES
from canet_ros.network.canet import ARCHITECTURES, CANet
from canet_ros.network.fusion import FUSIONS
from canet_ros.network.heads import HEADS

__all__ = ["ARCHITECTURES", "BACKBONES", "FUSIONS", "HEADS", "CANet"]
