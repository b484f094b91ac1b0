# SPDX-License-Identifier: Apache-2.0
"""Every mask in a bag has its camera_info, however drivers publish it, or the command says that it has none."""

from __future__ import annotations

from pathlib import Path

import drives
import numpy as np
import pytest
from drives import IMAGE, START_NS, Recorded, Segment, bag_of, read_bag, results_of

INFO = "sensor_msgs/msg/CameraInfo"
SECOND_NS = 10**9
STEP_NS = SECOND_NS // 4
GREY = np.full((24, 32, 3), 128, np.uint8)


def image(topic: str, time_ns: int, frame_id: str = "camera", encoding: str = "bgr8") -> Recorded:
    pixels = GREY if encoding == "bgr8" else np.zeros((24, 32), np.uint16)
    return Recorded(topic, IMAGE, time_ns, drives.image(pixels, time_ns, encoding, frame_id))


def info(time_ns: int, stamp_ns: int) -> Recorded:
    return Recorded("/cam/camera_info", INFO, time_ns, drives.camera_info(32, 24, stamp_ns))


def infos_of(out: Path, topic: str) -> list[int]:
    """Stamps of the camera_info messages of results, each scaled to the mask."""
    messages = list(results_of(read_bag(out), f"{topic}/camera_info"))
    assert all((message.width, message.height) == (32, 24) for message in messages)
    return sorted(m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages)


TIMES = [START_NS + index * STEP_NS for index in range(12)]
HABITS = {
    "each its own": [info(time + 5, time) for time in TIMES],
    "stamped once": [info(time - 5, START_NS) for time in TIMES],
    "not stamped": [info(time - 5, 0) for time in TIMES],
    "published once": [info(START_NS, START_NS)],
    "late": [info(TIMES[0] + 13 * SECOND_NS // 5, TIMES[0] + 13 * SECOND_NS // 5)],
    "every two seconds": [info(START_NS + n * SECOND_NS, START_NS + n * SECOND_NS) for n in (0, 2)],
    "by another clock": [info(time + 5, time - START_NS + SECOND_NS) for time in TIMES],
}


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("start", [0, 1.4])
def test_every_mask_has_a_camera_info(
    habit: str, start: float, segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = bag_of(tmp_path / "bag", [image("/cam/image_raw", time) for time in TIMES] + HABITS[habit])
    assert segment(source, tmp_path / "out", *(("--start", start) if start else ())) == 0
    wanted = [time for time in TIMES if time >= START_NS + start * SECOND_NS]
    assert infos_of(tmp_path / "out", "/cam/segmentation") == wanted
    printed = [line for line in capsys.readouterr().err.splitlines() if "camera_info" in line]
    assert len(printed) == (habit not in ("each its own", "not stamped")), printed


def test_every_image_topic_of_a_camera_has_it(segment: Segment, tmp_path: Path) -> None:
    names = ("image_raw", "image_color", "image_rect")
    recorded = [image(f"/cam/{name}", time + at) for at, name in enumerate(names) for time in TIMES]
    recorded += [image("/cam/depth", time, encoding="16UC1") for time in TIMES]
    recorded += [info(time + 9, time + 1) for time in TIMES]
    assert segment(bag_of(tmp_path / "bag", recorded), tmp_path / "out") == 0
    for at, name in enumerate(names):
        assert infos_of(tmp_path / "out", f"/cam/{name}/segmentation") == [time + at for time in TIMES]
    topics = {message.topic for message in read_bag(tmp_path / "out")}
    assert not any(topic.startswith("/cam/depth/") for topic in topics)


def test_another_camera_in_the_namespace_does_not_get_it(
    segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = [image("/cam/left", time) for time in TIMES] + [
        image("/cam/right", time, "right") for time in TIMES
    ]
    recorded += HABITS["each its own"]
    assert segment(bag_of(tmp_path / "bag", recorded), tmp_path / "out") == 0
    assert infos_of(tmp_path / "out", "/cam/left/segmentation") == TIMES
    assert infos_of(tmp_path / "out", "/cam/right/segmentation") == []
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "no camera_info" in line]
    assert "/cam/right" in line
    assert "'right'" in line
