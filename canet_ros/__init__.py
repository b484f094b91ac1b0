# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation of camera topics with CANet (Liu and Yin, ICIP 2019) for ROS 2."""

import sys

# Importing OpenVINO or NNCF tells Intel of it over the network, unless this package cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "1.0.0"
