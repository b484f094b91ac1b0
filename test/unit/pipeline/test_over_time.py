# SPDX-License-Identifier: Apache-2.0
"""Successive results of a camera: hysteresis of its masks, and confidences that tell unknown roads."""

from __future__ import annotations

import numpy as np
import pytest

from canet_ros.pipeline.ood_monitor import OodMonitor, figures, in_distribution_range
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.pipeline.temporal_filter import LONGEST_GAP_NS, MOVED_PX, SURE, TemporalFilter

PERIOD_NS = 33_000_000
ROAD, CAR = 3, 8


def scene(blob: int = ROAD, confidence: int = SURE - 1, size: int = 20) -> Segmentation:
    """Road everywhere, sure, with a blob of a class."""
    mask, sure = np.full((size, 30), ROAD, np.uint8), np.full((size, 30), 250, np.uint8)
    mask[6:9, 6:9], sure[6:9, 6:9] = blob, confidence
    return Segmentation(mask, sure)


def shown(steady: TemporalFilter, *scenes: Segmentation) -> list[int]:
    """The blob's class in each of successive images."""
    return [int(steady(s, (number + 1) * PERIOD_NS).mask[7, 7]) for number, s in enumerate(scenes)]


def test_an_unsure_class_is_shown_when_it_stays_and_a_sure_one_at_once() -> None:
    assert shown(TemporalFilter(), scene(), scene(CAR), scene(), scene(CAR), scene(CAR), scene(CAR)) == [
        ROAD, ROAD, ROAD, ROAD, CAR, CAR,
    ]  # fmt: skip
    assert shown(TemporalFilter(), scene(), scene(CAR, SURE), scene(ROAD, SURE)) == [ROAD, CAR, ROAD]
    # What vanishes is gone in the second image without it.
    assert shown(TemporalFilter(), scene(CAR), scene(ROAD, 0), scene(ROAD, 0)) == [CAR, CAR, ROAD]


def test_an_area_that_changes_as_one_is_shown_at_once() -> None:
    steady, moved = TemporalFilter(), scene()
    moved.mask[5 : 5 + MOVED_PX, 5 : 5 + MOVED_PX] = CAR
    moved.confidence[:] = 0
    steady(scene(), PERIOD_NS)
    np.testing.assert_array_equal(steady(moved, 2 * PERIOD_NS).mask, moved.mask)


@pytest.mark.parametrize("stamp_ns", [10 * PERIOD_NS + LONGEST_GAP_NS + 1, 9 * PERIOD_NS, 10 * PERIOD_NS, 0])
def test_a_stamp_that_jumps_begins_anew(stamp_ns: int) -> None:
    steady = TemporalFilter()
    steady(scene(), 10 * PERIOD_NS)
    assert steady(scene(CAR), stamp_ns).mask[7, 7] == CAR


def test_a_cut_and_another_size_begin_anew() -> None:
    steady = TemporalFilter()
    steady(scene(), PERIOD_NS)
    other = Segmentation(np.full((20, 30), CAR, np.uint8), np.zeros((20, 30), np.uint8))
    assert (steady(other, 2 * PERIOD_NS).mask == CAR).all()
    assert steady(scene(CAR, 0, size=24), 3 * PERIOD_NS).mask[7, 7] == CAR
    steady.forget()
    assert steady(scene(ROAD, 0, size=24), 4 * PERIOD_NS).mask[7, 7] == ROAD


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


def test_nothing_is_said_without_a_range() -> None:
    monitor = OodMonitor({})
    monitor.update(flat(3), None)
    assert (monitor.problem(), monitor.values()) == ("", {})
