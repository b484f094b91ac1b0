# SPDX-License-Identifier: Apache-2.0
"""The segmentation node on an engine whose masks are wrong after some inferences, and that then ends the process."""

import itertools
import os
import sys

import numpy as np

from canet_ros.engines import onnxruntime_engine
from canet_ros.ros import node

_run, _numbers = onnxruntime_engine.OnnxRuntimeEngine.run, itertools.count()


def run(self, images):
    number = next(_numbers)
    masks, confidences = _run(self, images)
    if number == 45:
        os._exit(7)
    return np.flip(masks, axis=1).copy() if number > 30 else masks, confidences


onnxruntime_engine.OnnxRuntimeEngine.run = run

if __name__ == "__main__":
    sys.exit(node.main())
