# SPDX-License-Identifier: Apache-2.0
"""The processing of a frame, shared by the node and by bags, without ROS."""
