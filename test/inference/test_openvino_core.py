# SPDX-License-Identifier: Apache-2.0
"""Signals are survived after engines have come and gone.

OpenVINO's CPU plugin gives the thread that loads it a signal stack of its own, and takes it away when its last user
goes: with a Core for each engine the next signal found no memory, and the process died of SIGSEGV.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

CODE = """
import faulthandler, gc, signal, subprocess, sys
from canet_ros.inference import Segmenter
faulthandler.enable()  # as pytest, and many a robot's program: it brings the first signal stack
signal.signal(signal.SIGCHLD, lambda *_: None)
load = lambda precision: Segmenter.load(sys.argv[1], "cpu", "openvino", precision)
first = load("fp32")
second = load("fp32")
for segmenters in range(4):
    del first
    gc.collect()
    first, second = second, load("fp32")
del first, second
gc.collect()
subprocess.run(["true"], check=True)
print("alive")
"""


def test_a_signal_after_engines_have_gone(random_model: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", CODE, str(random_model)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "alive"
