# SPDX-License-Identifier: Apache-2.0
"""Processes that start an engine together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

_START = """
import json, sys
import numpy as np
from canet_ros.pipeline.segmenter import Segmenter
segmenter = Segmenter.load(sys.argv[1], "cpu")
mask = segmenter(np.zeros((120, 160, 3), np.uint8)).mask
print(json.dumps([segmenter.engine.name, segmenter.engine.fallback_reasons, int(mask.sum())]))
"""


def test_many_start_together_on_an_empty_cache(random_model: Path, own_cache: Path) -> None:
    command = [sys.executable, "-c", _START, str(random_model)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(int(os.environ.get("CANET_TEST_PROCESSES", 3)))
    ]
    outputs = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * len(started), outputs
    answers = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][:2] == ["openvino", []]
    assert len(list(own_cache.rglob("*.blob"))) == 1
    assert len([path for path in own_cache.rglob("*.onnx") if path.name != "network.onnx"]) == 1
    assert not list(own_cache.rglob("building-*"))
