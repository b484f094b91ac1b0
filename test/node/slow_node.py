# SPDX-License-Identifier: Apache-2.0
"""The segmentation node with inferences (but the warm-up) that take CANET_TEST_SLEEP_S seconds longer; says on stdout
when a frame is received and when an inference starts, on ``time.time``'s clock. A white image breaks the engine.
"""

import os
import sys
import time

from canet_ros.engines import onnxruntime_engine
from canet_ros.ros import frame_slots, node

_run = onnxruntime_engine.OnnxRuntimeEngine.run
_put = frame_slots.LatestSlots.put


def say(*words):
    # Whole lines, also from two threads.
    os.write(1, (" ".join(map(str, (*words, time.time()))) + "\n").encode())


def _slow_run(self, images):
    if images.any():  # which the warm-up's are not
        say("inference")
        time.sleep(float(os.environ["CANET_TEST_SLEEP_S"]))
    if images.min() == 255:
        raise RuntimeError("the engine broke")
    return _run(self, images)


def _telling_put(self, source, frame, admits=None):
    result = _put(self, source, frame, admits)
    stamp = frame.message.header.stamp
    say("received", source, stamp.sec * 10**9 + stamp.nanosec)
    return result


onnxruntime_engine.OnnxRuntimeEngine.run = _slow_run
frame_slots.LatestSlots.put = _telling_put

if __name__ == "__main__":
    sys.exit(node.main())
