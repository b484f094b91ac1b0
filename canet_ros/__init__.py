# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation of camera topics with CANet (Liu and Yin, ICIP 2019) for ROS 2.

>>> from canet_ros import Segmenter
>>> segmenter = Segmenter.load("canet-mobilenet_v2-camvid")
>>> mask = segmenter(image_bgr).mask

Importing ``canet_ros`` imports neither torch nor OpenCV; a name below does when it is used first.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canet_ros.errors import EngineError
    from canet_ros.model.class_table import ClassTable, load_class_table
    from canet_ros.model.model_folder import ModelError
    from canet_ros.opencv import ImageFileError as ImageError
    from canet_ros.pipeline.segmentation import Segmentation
    from canet_ros.pipeline.segmenter import Segmenter

# Telemetry off: OpenVINO and NNCF report their import to Intel, ONNX Runtime 1.32 its sessions to Microsoft.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "2.0.0"
__all__ = [
    "ClassTable",
    "EngineError",
    "ImageError",
    "ModelError",
    "Segmentation",
    "Segmenter",
    "load_class_table",
]

_MODULES = {
    "ClassTable": "model.class_table",
    "EngineError": "errors",
    "ImageError": "opencv",
    "ModelError": "model.model_folder",
    "Segmentation": "pipeline.segmentation",
    "Segmenter": "pipeline.segmenter",
    "load_class_table": "model.class_table",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are used first."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"canet_ros.{_MODULES[name]}")
    value = module.ImageFileError if name == "ImageError" else getattr(module, name)
    globals()[name] = value
    return value
