# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation of camera topics with CANet (Liu and Yin, ICIP 2019) for ROS 2."""

__version__ = "1.0.0"
