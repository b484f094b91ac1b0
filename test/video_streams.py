# SPDX-License-Identifier: Apache-2.0
"""Streams of video encoded by PyAV, whose images tell their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from canet_ros.messages.video import VideoPacket

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


def packets(kind: str, *without: int, flagged: bool = True) -> list[VideoPacket]:
    """The stream as the decoder takes it, except these images; a packet's stamp is the number of its image."""
    chosen = [packet for packet in stream(kind) if packet.number not in without]
    return [VideoPacket(p.data, kind.partition(" ")[0], p.number, "", flagged and p.key) for p in chosen]
