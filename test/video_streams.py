# SPDX-License-Identifier: Apache-2.0
"""Streams of video encoded by PyAV, whose images tell their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

GOP = 10
OPTIONS = {
    "libx264": {"preset": "fast", "sc_threshold": "0", "bf": "0"},
    "libx264 with B-frames": {"preset": "fast", "sc_threshold": "0", "bf": "3", "b_strategy": "0"},
    "libx265": {"x265-params": "log-level=none:bframes=0"},
    "libx265 with B-frames": {"x265-params": "log-level=none:bframes=3"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12", "crf": "20"},
}
KINDS = tuple(OPTIONS)


@dataclass
class Packet:
    """Attributes: number of the image, from 0; key: whether it is a keyframe."""

    number: int
    key: bool
    data: bytes


def image(number: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """Textured, so that damage is visible; its mean tells the number up to 29."""
    noise = np.random.default_rng(1).integers(-12, 12, (size[1], size[0], 1))
    shifted = np.roll(noise, number * 3, axis=1)
    return np.clip(shifted + 20 + 7 * number, 0, 255).astype(np.uint8).repeat(3, axis=2)


def number_of(pixels: np.ndarray) -> int:
    return round((float(pixels.mean()) - 19.5) / 7)


def stream(kind: str, numbers: Sequence[int] = range(25), size: tuple[int, int] = (160, 120)) -> list[Packet]:
    """Packets in the order of decoding, with a keyframe in every ``GOP`` images."""
    context: Any = av.CodecContext.create(kind.partition(" ")[0], "w")
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.gop_size, context.bit_rate, context.options = (
        GOP,
        0 if kind == "libsvtav1" else 4_000_000,
        OPTIONS[kind],
    )
    packets = []
    for number in (*numbers, None):
        frame = None
        if number is not None:
            frame = av.VideoFrame.from_ndarray(image(number, size), "bgr24")
            frame.pts, frame.time_base = number, context.time_base
        packets += context.encode(frame)
    return [Packet(packet.pts, packet.is_keyframe, bytes(packet)) for packet in packets]


def ffmpeg_message(packet: Packet, stamp_ns: int, encoding: str) -> Any:
    """An object with the fields of an FFMPEGPacket."""
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    header = SimpleNamespace(stamp=stamp, frame_id=f"camera {packet.number}")
    return SimpleNamespace(header=header, encoding=encoding, flags=int(packet.key), data=packet.data)


def foxglove_message(packet: Packet, stamp_ns: int, encoding: str) -> Any:
    """An object with the fields of a CompressedVideo."""
    header = ffmpeg_message(packet, stamp_ns, encoding).header
    return SimpleNamespace(
        timestamp=header.stamp, frame_id=header.frame_id, format=encoding, data=packet.data
    )


def missing(packets: Sequence[Packet], number: int) -> Iterator[Packet]:
    """All packets except that of an image."""
    return (packet for packet in packets if packet.number != number)
