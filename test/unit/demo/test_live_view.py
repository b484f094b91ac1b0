# SPDX-License-Identifier: Apache-2.0
"""The live view over HTTP, and in Chromium where it is installed."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest

from canet_ros.demo.live_view import LiveView

RED, GREEN = ((0, 0, 255), (0, 255, 0))  # BGR


def plain_image(color: tuple[int, int, int]) -> np.ndarray:
    return np.full((48, 64, 3), color, np.uint8)


@pytest.fixture
def view() -> Iterator[LiveView]:
    view = LiveView()
    yield view
    view.close()


def next_color(stream: http.client.HTTPResponse) -> tuple[int, ...]:
    """Colour of the next image of the stream; channels rounded to 0 or 255."""
    while not (line := stream.readline()).startswith(b"Content-Length"):
        assert line, "the stream has ended"
    stream.readline()
    jpeg = stream.read(int(line.split()[1]))
    pixel = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[24, 32]
    return tuple(int(round(value / 255) * 255) for value in pixel.tolist())


def test_every_viewer_receives_the_newest_image_and_later_ones(view: LiveView) -> None:
    view.show(plain_image(RED))
    with (
        urlopen(f"{view.address}stream", timeout=10) as one,
        urlopen(f"{view.address}stream", timeout=10) as two,
    ):
        assert (next_color(one), next_color(two)) == (RED, RED)
        view.show(plain_image(GREEN))
        assert (next_color(one), next_color(two)) == (GREEN, GREEN)


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("evil.example", "", 403),
        ("evil.example:80", "stream", 403),
        ("127.0.0.1", "", 403),
        (None, "../etc", 404),
    ],
)
def test_foreign_host_names_and_other_paths_are_refused(
    view: LiveView, host: str | None, path: str, status: int
) -> None:
    request = Request(view.address + path, headers={"Host": host} if host else {})
    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=10)
    assert refused.value.code == status


def test_it_listens_on_the_loopback_address_only(view: LiveView) -> None:
    port = int(view.address.rstrip("/").rpartition(":")[2])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [row[1] for row in listening if row[1].endswith(f":{port:04X}") and row[3] == "0A"] == [
        f"0100007F:{port:04X}"
    ]
