# SPDX-License-Identifier: Apache-2.0
"""Video packets become images with their own stamps, whatever is lost, damaged, reordered or resized."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import video_streams
from video_streams import KINDS, Packet, ffmpeg_message, foxglove_message, number_of, stream

from canet_ros.messages.images import ImageMessageError
from canet_ros.messages.video import VideoDecoder, VideoFrame, VideoPacket, decoder_name

H264, H264_B, H265, H265_B = KINDS[:4]
MESSAGES = {"ffmpeg": ffmpeg_message, "foxglove": foxglove_message}


def time_ns(number: int) -> int:
    """Uneven, as of a camera without a constant rate."""
    return 1_700_000_000_000_000_000 + number * 33_000_000 + number % 3 * 10_000_000


def decode(
    packets: Iterable[Packet],
    encoding: str = "h264",
    form: str = "ffmpeg",
    decoder: VideoDecoder | None = None,
) -> list[VideoFrame]:
    decoder, frames = decoder or VideoDecoder(), []
    for packet in packets:
        message = MESSAGES[form](packet, time_ns(packet.number), encoding)
        frames += decoder.decode(VideoPacket.of(message))
    return [*frames, *decoder.flush()]


def numbers(frames: Iterable[VideoFrame]) -> list[int]:
    """Of the images; each has the stamp and frame_id of its packet."""
    found = []
    for frame in frames:
        if frame.problem:
            continue
        number = number_of(frame.pixels())
        stamp = frame.packet.stamp.sec * 10**9 + frame.packet.stamp.nanosec
        assert (stamp, frame.packet.frame_id) == (time_ns(number), f"camera {number}")
        found.append(number)
    return found


def skipped(frames: Iterable[VideoFrame]) -> dict[int, str]:
    """Problems by number of the packet."""
    return {int(f.packet.frame_id.split()[-1]): f.problem for f in frames if f.problem}


@pytest.mark.parametrize("form", MESSAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_packet_gives_its_image(kind: str, form: str) -> None:
    frames = decode(stream(kind), kind.partition(" ")[0], form)
    assert numbers(frames) == list(range(25))
    assert sorted(frame.number for frame in frames) == list(range(25))


@pytest.mark.parametrize("kind", [H264, H265])
def test_without_b_frames_the_image_comes_at_once(kind: str) -> None:
    decoder = VideoDecoder()
    for packet in stream(kind):
        (frame,) = decoder.decode(VideoPacket.of(ffmpeg_message(packet, 0, kind)))
        assert number_of(frame.pixels()) == packet.number


@pytest.mark.parametrize("form", MESSAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_begins_between_keyframes(kind: str, form: str) -> None:
    packets = [packet for packet in stream(kind) if packet.number > 3]
    frames = decode(packets, kind.partition(" ")[0], form)
    assert numbers(frames) == list(range(10, 25))
    assert sorted(skipped(frames)) == list(range(4, 10))
    leading = {"the decoder returned no image"} if kind == H265_B else set()  # B-frames before the keyframe
    assert (
        set(skipped(frames).values())
        == {"waiting for a keyframe: the stream begins between keyframes"} | leading
    )


@pytest.mark.parametrize("form", MESSAGES)
@pytest.mark.parametrize("kind", [H264, H264_B, H265, H265_B])
def test_after_a_lost_packet_decoding_resumes_at_the_next_keyframe(kind: str, form: str) -> None:
    packets = stream(kind)
    lost = next(
        p.number for p in packets[13:] if all(q.number < p.number for q in packets[: packets.index(p)])
    )
    frames = decode(video_streams.missing(packets, lost), kind, form)
    shown = numbers(frames)
    assert set(shown) >= {*range(10), *range(20, 25)}
    assert shown == sorted(shown)
    assert not set(range(lost, 20)) & set(shown), "it refers to the lost one"
    assert {text for text in skipped(frames).values() if "keyframe" in text} <= {
        "waiting for a keyframe: a packet was lost",
        "waiting for a keyframe: a packet is damaged",
    }
    assert len(frames) == 24


def test_a_packet_that_the_middleware_reports_as_lost() -> None:
    """The decoder of VP9 does not notice by itself."""
    packets, decoder = stream("libvpx-vp9"), VideoDecoder()
    frames = []
    for packet in packets:
        if packet.number == 4:
            frames += decoder.lose()
            continue
        frames += decoder.decode(VideoPacket.of(foxglove_message(packet, time_ns(packet.number), "vp9")))
    assert numbers(frames) == [*range(4), *range(10, 25)]


@pytest.mark.parametrize("kind", [H264, H264_B, H265_B])
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_damaged_packet(kind: str, damage: str) -> None:
    packets = stream(kind)
    packet = next(p for p in packets[11:] if p.number % 10)
    noise = np.random.default_rng(2).integers(0, 256, len(packet.data) - 6, np.uint8).tobytes()
    packet.data = {
        "empty": b"",
        "cut": packet.data[: len(packet.data) // 3],
        "noise": packet.data[:6] + noise,
    }[damage]
    frames = decode(packets, kind)
    # FFmpeg may give up the frame that it was about to return.
    assert set(numbers(frames)) >= {*range(9), *range(20, 25)}
    assert len(frames) == 25
    if damage == "empty":
        assert skipped(frames)[packet.number] == "the packet cannot be decoded: it is empty"


@pytest.mark.parametrize("kind", [H264_B, H265_B])
def test_the_resolution_changes(kind: str) -> None:
    packets = [*stream(kind, range(12)), *stream(kind, range(12, 24), (320, 240))]
    frames = decode(packets, kind)
    assert numbers(frames) == list(range(24))
    assert [frame.pixels().shape for frame in frames[10:14]] == [(120, 160, 3)] * 2 + [(240, 320, 3)] * 2


def test_the_encoding_changes() -> None:
    decoder = VideoDecoder()
    frames = []
    for packets, kind in ((stream(H264_B, range(12)), H264), (stream(H265_B, range(12, 24)), H265)):
        for packet in packets:
            frames += decoder.decode(VideoPacket.of(ffmpeg_message(packet, time_ns(packet.number), kind)))
    assert numbers([*frames, *decoder.flush()]) == list(range(24))


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("prores_9000", "cannot decode 'prores_9000'; it decodes h264, h265"),
        ("", "cannot decode ''"),
        ("hevc;gray12le;mono16;16UC1", "depth, not camera images"),
    ],
)
def test_an_encoding_that_cannot_be_decoded_is_named(encoding: str, words: str) -> None:
    frames = decode(stream(H264, range(3)), encoding)
    assert len(frames) == 3
    with pytest.raises(ImageMessageError, match=words):
        frames[0].pixels()


def test_an_image_larger_than_max_pixels() -> None:
    with pytest.raises(ImageMessageError, match="160x120 pixels is larger"):
        decode(stream(H264, range(2)))[0].pixels(max_pixels=1000)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("libx264", "h264"),
        ("h264_nvmpi;yuv420p;bgr8;rgb8", "h264"),
        ("hevc_nvenc", "hevc"),
        ("H265", "hevc"),
        ("libsvtav1", "libdav1d"),
        ("mjpeg", "mjpeg"),
    ],
)
def test_names_of_encoders_name_decoders(encoding: str, name: str) -> None:
    assert decoder_name(encoding) == name
