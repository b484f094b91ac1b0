# SPDX-License-Identifier: Apache-2.0
"""Video packets become images with their own stamps, whatever is lost, damaged, reordered or resized."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from video_streams import KINDS, number_of, packets, stream

from canet_ros.messages.images import ImageMessageError
from canet_ros.messages.video import VideoDecoder, VideoFrame, VideoPacket

H264, H264_B, H265, H265_B, VP9, AV1 = KINDS


def decode(packets: Iterable[VideoPacket]) -> list[VideoFrame]:
    decoder = VideoDecoder()
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    return [*frames, *decoder.flush()]


def shown(frames: Iterable[VideoFrame]) -> list[int]:
    """Numbers of the images, which are also the stamps of their packets."""
    numbers = {frame.packet.stamp: number_of(frame.pixels()) for frame in frames if not frame.problem}
    assert list(numbers) == list(numbers.values())
    return list(numbers)


def problems(frames: Iterable[VideoFrame]) -> dict[int, str]:
    return {frame.packet.stamp: frame.problem for frame in frames if frame.problem}


@pytest.mark.parametrize("kind", KINDS)
def test_every_packet_gives_its_image(kind: str) -> None:
    frames = decode(packets(kind))
    assert shown(frames) == list(range(25))
    assert sorted(frame.number for frame in frames) == list(range(25))


@pytest.mark.parametrize("kind", [H264, H265])
def test_without_b_frames_the_image_comes_at_once(kind: str) -> None:
    decoder = VideoDecoder()
    assert [shown(decoder.decode(packet)) for packet in packets(kind)] == [[number] for number in range(25)]


@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_begins_between_keyframes(kind: str, flagged: bool) -> None:
    frames = decode(packets(kind, *range(4), flagged=flagged))
    assert shown(frames) == list(range(10, 25))
    assert sorted(problems(frames)) == list(range(4, 10))
    leading = {"the decoder returned no image"} if kind == H265_B else set()  # B-frames before the keyframe
    begins = "waiting for a keyframe: the stream begins between keyframes"
    assert set(problems(frames).values()) == {begins} | leading


@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize(("kind", "lost"), [(H264, 13), (H264_B, 14), (H265, 13), (H265_B, 14)])
def test_after_a_lost_packet_decoding_resumes_at_the_next_keyframe(
    kind: str, lost: int, flagged: bool
) -> None:
    frames = decode(packets(kind, lost, flagged=flagged))
    assert set(shown(frames)) >= {*range(11), *range(20, 25)}
    assert not set(range(lost, 20)) & set(shown(frames)), "they refer to the lost one"
    assert len(frames) == 24


def test_a_packet_that_the_middleware_reports_as_lost() -> None:
    """The decoder of VP9 does not notice by itself."""
    decoder = VideoDecoder()
    first, second = packets(VP9, *range(4, 25)), packets(VP9, *range(5))
    frames = [frame for packet in first for frame in decoder.decode(packet)] + decoder.lose()
    assert shown(frames + [f for packet in second for f in decoder.decode(packet)]) == [
        *range(4),
        *range(10, 25),
    ]


@pytest.mark.parametrize("kind", [H264, H264_B, H265_B])
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_damaged_packet(kind: str, damage: str) -> None:
    sent = packets(kind)
    data = sent[11].data
    noise = np.random.default_rng(2).integers(0, 256, len(data) - 6, np.uint8).tobytes()
    damaged = {"empty": b"", "cut": data[: len(data) // 3], "noise": data[:6] + noise}[damage]
    sent[11] = replace(sent[11], data=damaged)
    frames = decode(sent)
    # FFmpeg may give up the frame that it was about to return.
    assert set(shown(frames)) >= {*range(9), *range(20, 25)}
    assert len(frames) == 25
    if damage == "empty":
        assert problems(frames)[sent[11].stamp] == "the packet cannot be decoded: it is empty"


@pytest.mark.parametrize(("first", "second"), [(H264_B, H264_B), (H265_B, H265_B), (H264_B, H265_B)])
def test_resolution_and_encoding_change(first: str, second: str) -> None:
    larger = [
        VideoPacket(p.data, second.partition(" ")[0], p.number, "", p.key)
        for p in stream(second, range(12, 24), (320, 240))
    ]
    frames = decode([*packets(first, *range(12, 25))[:12], *larger])
    assert [f.pixels().shape for f in frames if f.packet.stamp > 11] == [(240, 320, 3)] * 12
    assert set(shown(frames)) >= {*range(10), *range(12, 24)}


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("strange", "cannot decode 'strange'; it decodes h264, h265"),
        ("", "cannot decode ''"),
        ("hevc;gray12le;mono16;16UC1", "depth, not camera images"),
    ],
)
def test_an_encoding_that_cannot_be_decoded_is_named(encoding: str, words: str) -> None:
    frames = decode(replace(packet, encoding=encoding) for packet in packets(H264))
    assert len(frames) == 25
    with pytest.raises(ImageMessageError, match=words):
        frames[0].pixels()


def test_an_image_larger_than_max_pixels() -> None:
    with pytest.raises(ImageMessageError, match="160x120 pixels is larger"):
        decode(packets(H264))[0].pixels(max_pixels=1000)
