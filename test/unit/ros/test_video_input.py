# SPDX-License-Identifier: Apache-2.0
"""The decoding thread of a camera: order, losses, overload, and what a missing package is called."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("rclpy")

import video_streams
from builtin_interfaces.msg import Time
from video_streams import number_of
from waiting import wait_until

from canet_ros.messages.video import VideoDecoder, VideoPacket
from canet_ros.ros.statistics import Statistics
from canet_ros.ros.video_input import VideoInput, VideoMessage, video_message_type

Put = Callable[[Sequence[VideoPacket]], list[VideoMessage]]


@pytest.fixture
def put() -> Iterator[Put]:
    """Queues packets; returns the list that receives their outcomes. A gap in the stamps is a loss."""
    messages: list[VideoMessage] = []
    video = VideoInput(messages.append, Statistics())

    def queue(packets: Sequence[VideoPacket]) -> list[VideoMessage]:
        last = -1
        for packet in packets:
            video.put(packet, after_loss=packet.stamp.nanosec > last + 1)
            last = packet.stamp.nanosec
        return messages

    yield queue
    video.stop()


def packets(kind: str, *without: int) -> list[VideoPacket]:
    return [replace(p, stamp=Time(nanosec=p.stamp)) for p in video_streams.packets(kind, *without)]


def shown(messages: Sequence[VideoMessage]) -> list[int]:
    numbers = {m.header.stamp.nanosec: number_of(m.frame.pixels()) for m in messages if not m.frame.problem}
    assert list(numbers) == list(numbers.values())
    return list(numbers)


def test_packets_are_decoded_in_order_and_after_a_loss_from_a_keyframe(put: Put) -> None:
    messages = put(packets("libvpx-vp9", 4))
    wait_until(lambda: len(messages) == 24, "24 frames")
    assert shown(messages) == [*range(4), *range(10, 25)]
    assert {m.frame.problem for m in messages[4:9]} == {"waiting for a keyframe: a packet was lost"}


def test_packets_that_arrive_faster_than_they_are_decoded(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded: those waiting are counted and skipped."""
    stuck, decode = threading.Event(), VideoDecoder.decode

    def slow(self: VideoDecoder, packet: VideoPacket) -> Any:
        stuck.wait()
        return decode(self, packet)

    monkeypatch.setattr(VideoDecoder, "decode", slow)
    messages = put(packets("libx264") * 5)
    assert 99 <= len(messages) <= 100
    assert {m.frame.problem for m in messages} == {"video arrives faster than it can be decoded"}
    stuck.set()
    wait_until(lambda: len(messages) == 125, "an outcome of each packet")
    assert shown(messages)[-15:] == list(range(10, 25))


def test_an_unexpected_error_costs_the_packets_up_to_the_next_keyframe(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = VideoDecoder.decode

    def fail(self: VideoDecoder, packet: VideoPacket) -> Any:
        if packet.stamp.nanosec == 12:
            raise RuntimeError("codec")
        return decode(self, packet)

    monkeypatch.setattr(VideoDecoder, "decode", fail)
    messages = put(packets("libx264"))
    wait_until(lambda: len(messages) == 25, "25 frames")
    assert messages[12].frame.problem == "RuntimeError: codec"
    assert shown(messages) == [*range(12), *range(20, 25)]


def test_a_missing_package_is_named_with_its_apt_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ValueError, match="sudo apt install ros-jazzy-ffmpeg-image-transport-msgs"):
        video_message_type("ffmpeg")
    with pytest.raises(ValueError, match="foxglove_msgs is not installed"):
        video_message_type("foxglove")
