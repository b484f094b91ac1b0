# SPDX-License-Identifier: Apache-2.0
"""The decoding thread of a camera: order, losses, overload, and what a missing package is called."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy")

from video_streams import ffmpeg_message, number_of, stream
from waiting import wait_until

from canet_ros.messages.video import VideoDecoder, VideoPacket
from canet_ros.ros.statistics import Statistics
from canet_ros.ros.video_input import VideoInput, VideoMessage, video_message_type

Start = Callable[[], tuple[VideoInput, list[VideoMessage]]]
STATISTICS = Statistics()


@pytest.fixture
def start() -> Iterator[Start]:
    running = []

    def begin() -> tuple[VideoInput, list[VideoMessage]]:
        messages: list[VideoMessage] = []
        running.append(VideoInput(messages.append, STATISTICS))
        return running[-1], messages

    yield begin
    for video in running:
        video.stop()


def packets(kind: str, *numbers: int) -> list[VideoPacket]:
    chosen = [packet for packet in stream(kind) if packet.number not in numbers]
    return [VideoPacket.of(ffmpeg_message(packet, packet.number, kind)) for packet in chosen]


def test_every_packet_is_decoded_in_order(start: Start) -> None:
    video, messages = start()
    for packet in packets("libx264"):
        video.put(packet, after_loss=False)
    wait_until(lambda: len(messages) == 25, "25 frames")
    assert [number_of(message.frame.pixels()) for message in messages] == list(range(25))
    assert [message.header.stamp.nanosec for message in messages] == list(range(25))
    assert messages[3].header.frame_id == "camera 3"
    assert STATISTICS.percentiles_ms("decode") is not None


def test_after_a_loss_decoding_resumes_at_a_keyframe(start: Start) -> None:
    video, messages = start()
    for number, packet in enumerate(packets("libvpx-vp9", 4)):
        video.put(packet, after_loss=number == 4)
    wait_until(lambda: len(messages) == 24, "24 frames")
    problems = [message.frame.problem for message in messages]
    assert problems == [""] * 4 + ["waiting for a keyframe: a packet was lost"] * 5 + [""] * 15


def test_packets_that_arrive_faster_than_they_are_decoded(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is bounded: those waiting are counted and skipped."""
    stuck, decode = threading.Event(), VideoDecoder.decode

    def slow(self: VideoDecoder, packet: VideoPacket) -> Any:
        stuck.wait()
        return decode(self, packet)

    monkeypatch.setattr(VideoDecoder, "decode", slow)
    video, messages = start()
    everything = packets("libx264") * 5
    for packet in everything:
        video.put(packet, after_loss=False)
    early = len(messages)
    assert 99 <= early <= 100
    assert {m.frame.problem for m in messages} == {"video arrives faster than it can be decoded"}
    stuck.set()
    wait_until(lambda: len(messages) == 125, "an outcome of each packet")
    assert [number_of(m.frame.pixels()) for m in messages if not m.frame.problem][-15:] == list(range(10, 25))


def test_an_unexpected_error_costs_the_packets_up_to_the_next_keyframe(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = VideoDecoder.decode

    def fail(self: VideoDecoder, packet: VideoPacket) -> Any:
        if packet.stamp.nanosec == 12:
            raise RuntimeError("codec")
        return decode(self, packet)

    monkeypatch.setattr(VideoDecoder, "decode", fail)
    video, messages = start()
    for packet in packets("libx264"):
        video.put(packet, after_loss=False)
    wait_until(lambda: len(messages) == 25, "25 frames")
    assert messages[12].frame.problem == "RuntimeError: codec"
    shown = [number_of(m.frame.pixels()) for m in messages if not m.frame.problem]
    assert shown == [*range(12), *range(20, 25)]


def test_a_missing_package_is_named_with_its_apt_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ValueError, match="sudo apt install ros-jazzy-ffmpeg-image-transport-msgs"):
        video_message_type("ffmpeg")
    with pytest.raises(ValueError, match="foxglove_msgs is not installed"):
        video_message_type("foxglove")
