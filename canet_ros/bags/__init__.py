# SPDX-License-Identifier: Apache-2.0
"""Recorded drives: rosbag2 in, rosbag2 out, without a ROS installation.

Storage is read and written here and not by ``rosbags``, which refuses what is damaged, counts every row of a database
before the first is read, and cannot go on with a file that it began; message types and their CDR form are ``rosbags``'.
"""
