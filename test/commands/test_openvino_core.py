# SPDX-License-Identifier: Apache-2.0
"""OpenVINO and ONNX Runtime tell nobody that they are used, and signals are survived after engines have come and gone.

OpenVINO's CPU plugin gives the thread that loads it a signal stack of its own, and takes it away when its last user
goes: with a Core for each engine the next signal found no memory, and the process died of SIGSEGV.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

CODE = """
import faulthandler, gc, signal, subprocess, sys
from canet_ros.pipeline.segmenter import Segmenter
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


@pytest.mark.parametrize(
    ("engine", "variable", "traces"), [("openvino", "HOME", "intel"), ("onnxruntime", "TMPDIR", ".ses")]
)
def test_engines_tell_nobody_that_they_are_used(
    random_model: Path, tmp_path: Path, engine: str, variable: str, traces: str
) -> None:
    """They leave no ``traces``: the number that OpenVINO sends, the session that ONNX Runtime would tell of."""
    code = "from canet_ros import Segmenter; Segmenter.load(*__import__('sys').argv[1:])"
    environment = {**os.environ, variable: str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", code, str(random_model), "cpu", engine, "fp32"]
    subprocess.run(command, env=environment, check=True)
    assert not (tmp_path / traces).exists()
