# SPDX-License-Identifier: Apache-2.0
"""``canet segment-bag --steady``: filtered masks, also of a resumed run; test_pipeline_options.py has the node's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import drives
import numpy as np
import pytest
from drives import COMPRESSED, IMAGE, START_NS, Recorded, Segment, read_bag, results_of, write_bag

from canet_ros.bags.output import Output
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.temporal_filter import TemporalFilter
from canet_ros.simulation import StreetDrive

PERIOD_NS = 33_000_000
FRONT, REAR = "/front/image_raw", "/rear/image_raw/compressed"
MASK = "segmentation/mask"


def noisy_drive(count: int) -> list[np.ndarray]:
    """A street that hardly moves, with noise in which unsure classes flicker; 320x240."""
    noise = np.random.default_rng(1)
    street = StreetDrive(seed=5, width=320, height=240).frame(0).image.astype(np.int16)
    return [np.clip(street + noise.normal(0, 8, street.shape), 0, 255).astype(np.uint8) for _ in range(count)]


def stamped(frames: Sequence[np.ndarray]) -> list[tuple[int, np.ndarray]]:
    """With a gap in the middle, behind which everything begins anew."""
    half = len(frames) // 2
    return [(START_NS + i * PERIOD_NS + (10**9 if i >= half else 0), frame) for i, frame in enumerate(frames)]


def masks(out: Path, camera: str) -> list[np.ndarray]:
    return [
        message.data.reshape(message.height, message.width)
        for message in results_of(read_bag(out), f"{camera}/{MASK}")
    ]


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, np.ndarray]]]:
    frames = stamped(noisy_drive(16))
    recorded = []
    for number, (time_ns, frame) in enumerate(frames):
        broken = number == 3
        recorded += [
            Recorded(FRONT, IMAGE, time_ns, b"" if broken else drives.image(frame, time_ns)),
            Recorded(REAR, COMPRESSED, time_ns + 1, drives.compressed(frame[:, ::-1], time_ns, "png")),
        ]
    return write_bag(tmp_path_factory.mktemp("steady") / "drive", recorded), frames


def expected(frames: Sequence[tuple[int, np.ndarray]], model: Path) -> list[np.ndarray]:
    segmenter, temporal_filter = Segmenter.load(model, "cpu", "onnxruntime", "fp32"), TemporalFilter()
    return [
        temporal_filter(segmenter.infer([frame])[0], stamp).resized((320, 240)).mask
        for stamp, frame in frames
    ]


def test_each_camera_has_its_own_filter(
    drive: tuple[Path, list[tuple[int, np.ndarray]]], segment: Segment, random_model: Path, tmp_path: Path
) -> None:
    source, frames = drive
    assert segment(source, tmp_path / "plain", "--outputs", "mask") == 0
    assert segment(source, tmp_path / "steady", "--outputs", "mask", "--steady") == 0
    front = [frame for number, frame in enumerate(frames) if number != 3]
    rear = [(stamp, np.ascontiguousarray(frame[:, ::-1])) for stamp, frame in frames]
    for camera, own in (("/front", front), ("/rear", rear)):
        found = masks(tmp_path / "steady", camera)
        assert np.array_equal(found, expected(own, random_model))
        assert not np.array_equal(found, masks(tmp_path / "plain", camera))


@pytest.mark.parametrize("files", [1, 3])
def test_a_resumed_run_writes_the_same_bytes(
    files: int,
    drive: tuple[Path, list[tuple[int, np.ndarray]]],
    segment: Segment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each file of OUT begins anew, so that it does not depend on when the run was ended."""
    source, _ = drive
    options = ("--steady", "--split-duration", "0.1")
    assert segment(source, tmp_path / "whole" / "out", *options) == 0
    begun: list[int] = []

    def stopping(next_file: Callable[..., None]) -> Callable[..., None]:
        def then_stop(*arguments: Any) -> None:
            next_file(*arguments)
            begun.append(1)
            if len(begun) == files:
                raise KeyboardInterrupt

        return then_stop

    with monkeypatch.context() as patch:
        patch.setattr(Output, "next_file", stopping(Output.next_file))
        assert segment(source, tmp_path / "out", *options) == 130
    assert segment(source, tmp_path / "out", *options, "--resume") == 0
    one, other = (
        {file.name: file.read_bytes() for file in (path / "out").iterdir()}
        for path in (tmp_path / "whole", tmp_path)
    )
    assert one == other
    assert len(one) >= files + 2
