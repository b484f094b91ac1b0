# SPDX-License-Identifier: Apache-2.0
"""The live view over HTTP, the demo's samples, and images of the user's videos and bags for the street camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
from waiting import WAIT_S

from canet_ros.demo.frame_sources import input_images
from canet_ros.demo.live_view import LiveView
from canet_ros.demo.results import Recording
from canet_ros.model.class_table import load_class_table

RED, GREEN = ((0, 0, 255), (0, 255, 0))  # BGR


@pytest.fixture
def view() -> Iterator[LiveView]:
    view = LiveView(load_class_table("camvid"))
    yield view
    view.close()


def shown_color(view: LiveView) -> tuple[int, ...]:
    """Colour of the image; channels rounded to 0 or 255."""
    with urlopen(f"{view.address}frame?1", timeout=WAIT_S) as response:
        pixel = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR)[24, 32]
    return tuple(int(round(value / 255) * 255) for value in pixel.tolist())


def test_viewers_receive_the_newest_image(view: LiveView) -> None:
    with pytest.raises(HTTPError, match="404"):
        shown_color(view)
    for color in (RED, GREEN):
        view.show(np.full((48, 64, 3), color, np.uint8))
        assert shown_color(view) == color


def test_the_page_has_a_legend(view: LiveView) -> None:
    with urlopen(view.address, timeout=WAIT_S) as page:
        assert '<i style="background:rgb(128, 64, 128)"></i>road</span>' in page.read().decode()


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("evil.example", "", 403),
        ("evil.example:80", "frame", 403),
        ("127.0.0.1", "", 403),
        (None, "../etc", 404),
    ],
)
def test_foreign_host_names_and_other_paths_are_refused(
    view: LiveView, host: str | None, path: str, status: int
) -> None:
    request = Request(view.address + path, headers={"Host": host} if host else {})
    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=WAIT_S)
    assert refused.value.code == status


def test_it_listens_on_the_loopback_address_only(view: LiveView) -> None:
    port = int(view.address.rstrip("/").rpartition(":")[2])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [row[1] for row in listening if row[1].endswith(f":{port:04X}") and row[3] == "0A"] == [
        f"0100007F:{port:04X}"
    ]


def test_samples_are_frames_whose_image_and_overlay_have_arrived() -> None:
    recording = Recording(load_class_table("camvid"))
    pixels = np.zeros((4, 4), np.uint8)
    received = {
        0: ["image", "mask"],
        1: ["overlay"],
        2: ["overlay", "mask", "image"],
        3: ["image", "overlay"],
    }
    for tenths, parts in received.items():
        for part in parts:
            recording.add(part, tenths * 10**8, pixels, 0)
    recording.add("image", 13 * 10**8, pixels, 0)
    recording.add("overlay", 13 * 10**8, pixels, 0)
    assert list(recording.samples) == [2 * 10**8, 13 * 10**8]


IMAGES = [np.full((48 + 2 * i, 64, 3), (40 * i, 250 - 30 * i, 90), np.uint8) for i in range(3)]


def write_video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for pixels in IMAGES:
        writer.write(cv2.resize(pixels, (64, 48)))
    writer.release()
    return path


def recorded_bag(path):
    """A rosbag2 with raw images and one that cannot be decoded on one topic, one compressed image on another."""
    drives = pytest.importorskip("drives")
    front, rear = drives.TOPICS["/front/image_raw"], drives.TOPICS["/rear/image_raw/compressed"]
    contents = [(front, drives.image(pixels, index + 1)) for index, pixels in enumerate(IMAGES)]
    contents += [(front, drives.image(IMAGES[0], 9, "no_such_encoding"))]
    contents += [(rear, drives.compressed(IMAGES[0], 10))]
    recorded = [drives.Recorded(t.name, t.msgtype, n * 10**8, cdr) for n, (t, cdr) in enumerate(contents)]
    return drives.write_bag(path, recorded, topics=[front, rear])


def test_frames_of_a_video(tmp_path):
    frames = list(input_images(write_video(tmp_path / "drive.avi"), pytest.fail))
    assert len(frames) == len(IMAGES)
    for frame, pixels in zip(frames, IMAGES):
        np.testing.assert_allclose(frame.mean((0, 1)), pixels.mean((0, 1)), atol=6)


def test_frames_of_a_rosbag_are_those_of_the_topic_with_most_images(tmp_path):
    warnings = []
    frames = list(input_images(recorded_bag(tmp_path / "bag"), warnings.append))
    assert len(frames) == len(IMAGES)
    for frame, pixels in zip(frames, IMAGES):
        np.testing.assert_array_equal(frame, pixels)
    assert len(warnings) == 1
    assert "/front/image_raw: " in warnings[0]
