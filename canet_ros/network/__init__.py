# SPDX-License-Identifier: Apache-2.0
"""The network of the paper, in torch. No files, no cameras, no ROS."""

from canet_ros.architectures import ARCHITECTURES, BACKBONES
from canet_ros.network.canet import CANet
from canet_ros.network.fusion import FUSIONS
from canet_ros.network.heads import HEADS

__all__ = ["ARCHITECTURES", "BACKBONES", "FUSIONS", "HEADS", "CANet"]
