# SPDX-License-Identifier: Apache-2.0
"""Images in, results out: the same for the node and for bags, without ROS."""
