# SPDX-License-Identifier: Apache-2.0
"""Operations of the networks, and peak throughput."""

from __future__ import annotations

import pytest

from canet_ros.benchmark.operations import count_gflop, peak_gflops
from canet_ros.network import CANet


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
