# SPDX-License-Identifier: Apache-2.0
"""The segmentation node with inferences that take CANET_TEST_SLEEP_S seconds longer, except the warm-up.

It prints when a frame is received and when an inference starts, on ``time.time``'s clock. A white image is a failure.
"""

import os
import sys
import time

from canet_ros.engines import onnxruntime_engine
from canet_ros.ros import frame_slots, node

_run = onnxruntime_engine.OnnxRuntimeEngine.run
_put = frame_slots.LatestSlots.put


def report(*words):
    # One write per line, because two threads print.
    os.write(1, (" ".join(map(str, (*words, time.time()))) + "\n").encode())


def _slow_run(self, images):
    if images.any():  # those of the warm-up are black
        report("inference")
        time.sleep(float(os.environ["CANET_TEST_SLEEP_S"]))
    if images.min() == 255:
        raise RuntimeError("the engine broke")
    return _run(self, images)


def _reporting_put(self, source, frame, admits=None):
    result = _put(self, source, frame, admits)
    stamp = frame.message.header.stamp
    report("received", source, stamp.sec * 10**9 + stamp.nanosec)
    return result


onnxruntime_engine.OnnxRuntimeEngine.run = _slow_run
frame_slots.LatestSlots.put = _reporting_put

if __name__ == "__main__":
    sys.exit(node.main())
