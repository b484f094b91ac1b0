# SPDX-License-Identifier: Apache-2.0
"""The page of ``canet benchmark --report``, and how its steps share the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canet_ros.benchmark.engines import count_gflop
from canet_ros.benchmark.report import limit_s, page, planned_steps
from canet_ros.network import CANet


def page_of(name: str, figures: dict[str, Any]) -> str:
    step = {"name": name, "seconds": 1, "figures": figures}
    return page({"machine": {"processor": "any"}, "model": "m", "steps": [step]})


def test_masks_that_are_not_those_of_fp32_are_marked() -> None:
    row = {"precision": "fp16", "device": "cuda:0", "rounds": 3, "median_ms": 1, "p95_ms": 2, "fps": 1000}
    rows = [
        {**row, "engine": "tensorrt", "agreement": 0.91, "miou": 0.7},
        {**row, "engine": "torch", "agreement": 0.9998},
        {**row, "engine": "onnxruntime"},
        {"engine": "openvino", "precision": "fp16", "error": "no such device"},
    ]
    text = page_of("engines", {"engines": rows})
    (tensorrt,) = [line for line in text.splitlines() if line.startswith("| tensorrt")]
    assert "| 0.9100 (not the masks of fp32: " in tensorrt
    assert text.count("not the masks") == 1
    assert "- openvino fp16: no such device" in text


def test_steps_fit_into_the_time_and_what_one_leaves_goes_to_those_after_it(tmp_path: Path) -> None:
    """Else a device without TensorRT, whose build gets the most, cuts its engines off beside two idle minutes."""
    steps = planned_steps("canet-mobilenet_v2-camvid", "cpu", tmp_path, minutes=15)
    left_s = sum(step.limit_s for step in steps)
    assert left_s == pytest.approx(15 * 60, rel=0.1)
    assert len({step.name for step in steps}) == len(steps)
    assert limit_s(steps, left_s) == pytest.approx(steps[0].limit_s)
    assert limit_s(steps[3:], left_s - 20) > 1.3 * steps[3].limit_s
    assert limit_s(steps[-1:], 5.0) == steps[-1].limit_s, (
        "a step that took longer takes nothing from the others"
    )
    assert limit_s(steps[-1:], 500.0) == pytest.approx(500.0)


def test_operations_are_those_of_the_paper() -> None:
    """CANet with MobileNetV2, 19 classes, 1024x512, counted by hand: 2 x 512 x 256 x 64 x 27 operations in the first
    convolution of the spatial branch, 39 GFLOP in total.
    """
    assert count_gflop(CANet(19), (1024, 512)) == pytest.approx(39, rel=0.02)
    assert count_gflop(CANet(19, architecture="canet_lite"), (1024, 512)) == pytest.approx(7.5, rel=0.03)
