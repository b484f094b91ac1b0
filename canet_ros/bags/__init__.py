# SPDX-License-Identifier: Apache-2.0
"""Recorded drives: rosbag2 in, rosbag2 out, without a ROS installation.

Formats come from libraries: mcap from ``mcap``, databases from ``sqlite3``, message types and their CDR form from
``rosbags``, whose readers are not used because they refuse what is damaged.
"""
