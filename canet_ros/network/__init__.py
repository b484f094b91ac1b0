# SPDX-License-Identifier: Apache-2.0
"""The network of the paper, in torch. No files, no cameras, no ROS."""

from canet_ros.network.canet import CANet

__all__ = ["CANet"]
