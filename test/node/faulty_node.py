# SPDX-License-Identifier: Apache-2.0
"""The segmentation node with an engine that fails as the file $CANET_TEST_FAULT says, read for every inference.

hang (and print it), raise, exit (SystemExit), shape, memory (for more than one image at once); and while
it is loaded: slow, build (slow, with an activity), broken, full (no memory), surprise. Other texts: no fault. "raise 3"
fails 3 times.
"""

import os
import sys
import time
from pathlib import Path

from canet_ros.engines import onnxruntime_engine
from canet_ros.errors import EngineError
from canet_ros.model import cache
from canet_ros.ros import node

_run, _init = onnxruntime_engine.OnnxRuntimeEngine.run, onnxruntime_engine.OnnxRuntimeEngine.__init__
_file = Path(os.environ["CANET_TEST_FAULT"])


def fault():
    words = _file.read_text().split()
    if len(words) == 2:
        left = int(words[1]) - 1
        _file.write_text(f"{words[0]} {left}" if left else "none")
    return words[0] if words else "none"


def wait_while(name):
    while _file.read_text().split()[:1] == [name]:
        time.sleep(0.02)


def faulty_init(self, request):
    found = _file.read_text()
    if found == "slow":
        wait_while("slow")
    elif found == "build":
        cache.derived_file(
            "test-build", lambda path: (wait_while("build"), path.write_text("built")), anew=True
        )
    elif found == "broken":
        raise EngineError("the driver is too old")
    elif found == "full":
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
    elif found == "surprise":
        raise OSError("libsomething.so: cannot open shared object file")
    _init(self, request)


def faulty_run(self, images):
    if not images.any():  # the warm-up
        return _run(self, images)
    found = fault()
    if found == "hang":
        print("hanging", flush=True)
        wait_while("hang")
    elif found == "raise":
        raise RuntimeError("the engine broke")
    elif found == "exit":
        sys.exit("a library that ends the process")
    elif found == "memory" and len(images) > 1:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
    masks, confidences = _run(self, images)
    if found == "shape":
        return masks[:, 1:], confidences
    return masks, confidences


onnxruntime_engine.OnnxRuntimeEngine.__init__ = faulty_init
onnxruntime_engine.OnnxRuntimeEngine.run = faulty_run

if __name__ == "__main__":
    sys.exit(node.main())
