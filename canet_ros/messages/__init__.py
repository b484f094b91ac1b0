# SPDX-License-Identifier: Apache-2.0
"""What camera and result messages hold, whoever made the message: the node and the bags share it. No ROS."""
