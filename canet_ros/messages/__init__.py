# SPDX-License-Identifier: Apache-2.0
"""Conversion of camera and result messages, shared by the node and the bag tools. Does not need ROS."""
