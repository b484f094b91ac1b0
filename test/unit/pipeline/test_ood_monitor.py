# SPDX-License-Identifier: Apache-2.0
"""Roads that a model does not know, told by its confidences."""

from __future__ import annotations

import numpy as np
import pytest

from canet_ros.pipeline.ood_monitor import OodMonitor, figures, in_distribution_range
from canet_ros.pipeline.segmentation import Segmentation

SHAPE = (30, 40)


def of_confidence(confidence: np.ndarray) -> Segmentation:
    return Segmentation(np.zeros(confidence.shape, np.uint8), confidence)


def flat(level: int) -> Segmentation:
    return of_confidence(np.full(SHAPE, level, np.uint8))


def mixed(low: int) -> Segmentation:
    return of_confidence(np.random.default_rng(low).integers(low, 256, SHAPE, np.uint8))


def test_figures_of_an_image() -> None:
    confidence = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    found = figures(of_confidence(confidence))
    assert found["mean"] == pytest.approx(confidence.mean() / 255)
    assert found["upper"] == pytest.approx(confidence[:10].mean() / 255)
    assert found["tenth"] == pytest.approx(np.percentile(confidence, 10) / 255, abs=0.01)
    assert found["sure"] == pytest.approx((confidence >= 243).mean())


def test_pixels_that_do_not_count_do_not_count() -> None:
    confidence = np.full(SHAPE, 200, np.uint8)
    confidence[20:] = 0
    counted = np.ones(SHAPE, bool)
    counted[20:] = False
    assert figures(of_confidence(confidence), counted) == pytest.approx(figures(flat(200)))
    assert figures(of_confidence(confidence), np.zeros(SHAPE, bool)) == {}


def test_a_warning_comes_with_some_frames_and_goes_by_itself() -> None:
    known = in_distribution_range([figures(mixed(low)) for low in (150, 160, 170)])
    monitor = OodMonitor(known)
    for _ in range(50):
        monitor.update(mixed(155), None)
    assert monitor.problem() == ""
    monitor.update(mixed(100), None)
    assert monitor.problem() == "", "one image is no reason"
    needed = 1
    while not monitor.problem():
        monitor.update(mixed(0), None)
        needed += 1
    assert needed < 15
    assert "mean confidence 0." in monitor.problem()
    for _ in range(60):
        monitor.update(mixed(155), None)
    assert monitor.problem() == ""
    for _ in range(60):  # one class all over, and sure of it
        monitor.update(flat(255), None)
    assert "1.00, expected at " in monitor.problem()


def test_nothing_is_said_without_a_range_or_of_few_images() -> None:
    monitor = OodMonitor({})
    monitor.update(flat(3), None)
    assert (monitor.problem(), monitor.values()) == ("", {})
    monitor = OodMonitor({"mean": (0.9, 0.95)})
    for _ in range(9):
        monitor.update(flat(3), None)
    assert monitor.problem() == ""
    monitor.update(flat(3), None)
    assert monitor.problem() != ""
