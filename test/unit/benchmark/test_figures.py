# SPDX-License-Identifier: Apache-2.0
"""Operations of the networks, peak throughput, and comparison with a baseline."""

from __future__ import annotations

from typing import Any

import pytest

from canet_ros.benchmark.comparison import regressions
from canet_ros.benchmark.operations import count_gflop, peak_gflops
from canet_ros.network import CANet

ROW = {
    "model": "m",
    "resolution": "160x120",
    "batch": 1,
    "engine": "openvino",
    "precision": "fp32",
    "device": "CPU",
}
FIGURES: dict[str, Any] = {
    "engines": [{**ROW, "engine": "plain PyTorch", "over_plain": 1.0}, {**ROW, "over_plain": 0.5}],
    "node": {
        "latency_ms": {"median": 30.0}, "memory_mb": 400.0, "plain_node": {"latency_ms": {"median": 20.0}}
    },
}  # fmt: skip


def test_operations_are_those_of_the_paper() -> None:
    """CANet with MobileNetV2, 19 classes, 1024x512, counted by hand: 2 x 512 x 256 x 64 x 27 operations in the first
    convolution of the spatial branch, 39 GFLOP in total.
    """
    assert count_gflop(CANet(19), (1024, 512)) == pytest.approx(39, rel=0.02)
    assert count_gflop(CANet(19, architecture="canet_lite"), (1024, 512)) == pytest.approx(7.5, rel=0.03)


def test_peak_is_measured_by_a_matrix_product() -> None:
    peak = peak_gflops("fp32")
    assert peak is not None
    assert 1 < peak < 100_000
    assert peak_gflops("int8") is None


def test_regressions_are_named() -> None:
    assert regressions(FIGURES, FIGURES, 0.0) == {}
    engine = f"{', '.join(map(str, ROW.values()))}: time relative to plain PyTorch"
    slower = {**FIGURES, "engines": [{**ROW, "over_plain": 0.56}]}
    assert regressions(slower, FIGURES, 0.15) == {}
    assert "0.56, 12% more" in regressions(slower, FIGURES, 0.1)[engine]
    assert regressions(FIGURES, slower, 0.0) == {}, "an improvement is not a regression"
    larger = {**FIGURES, "node": {**FIGURES["node"], "memory_mb": 500.0}}
    assert "25% more" in regressions(larger, FIGURES, 0.15)["node: memory, MB"]
    late = {**FIGURES, "node": {**FIGURES["node"], "latency_ms": {"median": 60.0}}}
    assert list(regressions(late, FIGURES, 0.15)) == ["node: latency relative to the plain node"]
    assert len(regressions({}, FIGURES, 0.15)) == 3
    with pytest.raises(ValueError, match="baseline"):
        regressions(FIGURES, {"machine": {}}, 0.15)
