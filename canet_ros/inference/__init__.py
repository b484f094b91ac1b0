# SPDX-License-Identifier: Apache-2.0
"""Frames in, class masks out. No ROS.

>>> from canet_ros.inference import Segmenter
>>> segmenter = Segmenter.load("canet-mobilenet_v2-camvid")
>>> mask = segmenter(image_bgr).mask
"""

from canet_ros.inference.class_table import ClassTable, load_class_table
from canet_ros.inference.model_folder import ModelError, ModelSpec, parse_resolution
from canet_ros.inference.segmenter import Segmentation, Segmenter

__all__ = [
    "ClassTable",
    "ModelError",
    "ModelSpec",
    "Segmentation",
    "Segmenter",
    "load_class_table",
    "parse_resolution",
]
