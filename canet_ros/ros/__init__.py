# SPDX-License-Identifier: Apache-2.0
"""The only room that imports rclpy: camera messages in, masks out."""
