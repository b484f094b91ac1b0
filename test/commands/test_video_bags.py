# SPDX-License-Identifier: Apache-2.0
"""Bags with video: every packet is carried over, and every image that it holds is segmented."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import drives
import numpy as np
import pytest
from drives import (
    EXACT,
    PERIOD_NS,
    START_NS,
    Recorded,
    Segment,
    Topic,
    carried,
    read_bag,
    results_of,
    write_bag,
)
from rosbags.typesys import get_types_from_msg
from video_streams import KINDS, Packet, image, number_of, stream

from canet_ros.bags.frames import result_images
from canet_ros.bags.reading import open_bag
from canet_ros.cli import main
from canet_ros.pipeline.segmenter import Segmenter

FFMPEG, FOXGLOVE = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "foxglove_msgs/msg/CompressedVideo"
TOPIC_OF = {FFMPEG: "/front/image_raw/ffmpeg", FOXGLOVE: "/front/image_raw/foxglove"}
H264, H264_B, H265, H265_B = KINDS[:4]
# As upstream's files have them.
drives.STORE.register(
    {
        **get_types_from_msg(
            "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
            "bool is_bigendian\nuint8[] data\n",
            FFMPEG,
        ),
        **get_types_from_msg(
            "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n", FOXGLOVE
        ),
    }
)


@lru_cache(maxsize=8)
def packets(kind: str) -> tuple[Packet, ...]:
    return tuple(stream(kind))


def stamp_ns(number: int) -> int:
    """Of a camera whose rate varies."""
    return START_NS + number * PERIOD_NS + number % 3 * 7_000_000


def recorded(
    packets: Sequence[Packet], msgtype: str = FFMPEG, encoding: str = "h264", topic: str = ""
) -> list[Recorded]:
    """Messages in the order in which the encoder sends the packets, stamped as their images."""
    messages = []
    for order, packet in enumerate(packets):
        header = drives.header(stamp_ns(packet.number))
        data = np.frombuffer(packet.data, np.uint8)
        if msgtype == FFMPEG:
            fields = (header, 160, 120, encoding, packet.number, int(packet.key), False, data)
        else:
            fields = (header.stamp, header.frame_id, data, encoding)
        cdr = drives.STORE.serialize_cdr(drives.STORE.types[msgtype](*fields), msgtype)
        log_ns = START_NS + order * PERIOD_NS
        messages += [
            Recorded(topic or TOPIC_OF[msgtype], msgtype, log_ns, bytes(cdr)),
            Recorded("/chatter", "std_msgs/msg/String", log_ns + 1000, drives.text(f"message {order}")),
        ]
    return messages


def bag(path: Path, messages: Sequence[Recorded], storage: str = "mcap") -> Path:
    """A bag; a database as Humble's, without definitions."""
    topics = {(m.topic, m.msgtype): Topic(m.topic, m.msgtype, drives.qos()) for m in messages}
    write_bag(path, messages, storage, topics=tuple(topics.values()))
    if storage == "sqlite3":
        with contextlib.closing(sqlite3.connect(drives.storage_file(path))) as database:
            database.execute("DROP TABLE message_definitions")
    return path


def masks(out: Path) -> dict[int, np.ndarray]:
    """By stamp."""
    found = {}
    for message in results_of(read_bag(out), "/front/segmentation/mask/compressed"):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        found[stamp] = cv2.imdecode(np.asarray(message.data), cv2.IMREAD_UNCHANGED)
    return found


def numbers(out: Path) -> list[int]:
    stamps = {stamp_ns(number): number for number in range(25)}
    return sorted(stamps[stamp] for stamp in masks(out))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("msgtype", [FFMPEG, FOXGLOVE])
@pytest.mark.parametrize("kind", [H264, H264_B, H265_B])
def test_every_image_is_segmented_and_every_packet_carried_over(
    kind: str, msgtype: str, storage: str, segment: Segment, segmenter: Segmenter, tmp_path: Path
) -> None:
    messages = recorded(packets(kind), msgtype, kind.partition(" ")[0])
    source = bag(tmp_path / "drive", messages, storage)
    assert segment(source, tmp_path / "out", "--outputs", "mask/compressed", "overlay/compressed") == 0
    written = read_bag(tmp_path / "out")
    assert carried(written) == messages
    found = masks(tmp_path / "out")
    assert list(found) == [stamp_ns(packet.number) for packet in packets(kind)], "in the order of the packets"
    # Encoding changes the images a little, and so the masks.
    for number in (0, 7, 13, 24):
        assert (found[stamp_ns(number)] == segmenter(image(number)).mask).mean() > 0.9
    with open_bag(tmp_path / "out", tmp_path) as written_bag:
        video = next(c for c in written_bag.connections if c.topic == TOPIC_OF[msgtype])
        assert b"uint8[] data" in video.definition
        frames = list(result_images(written_bag, "mask", with_images=True))
    shown = [number_of(frame.camera_image) for frame in frames if frame.camera_image is not None]
    assert shown == [packet.number for packet in packets(kind)]


@pytest.mark.parametrize("msgtype", [FFMPEG, FOXGLOVE])
@pytest.mark.parametrize("kind", [H264, H265])
def test_with_start_decoding_begins_at_the_keyframe_before(
    kind: str, msgtype: str, segment: Segment, tmp_path: Path, report: Callable[[], list[dict]]
) -> None:
    source = bag(tmp_path / "drive", recorded(packets(kind), msgtype, kind))
    options = ("--start", "1.65", "--end", "2.25", "--json", tmp_path / "report.json")
    assert segment(source, tmp_path / "out", *options) == 0
    assert numbers(tmp_path / "out") == list(range(17, 23))
    (summary,) = report()
    assert (summary["pictures"], summary["undecodable"]) == (6, 0)


def test_packets_without_an_image_are_counted_and_named(
    segment: Segment, tmp_path: Path, report: Callable[[], list[dict]], capsys: pytest.CaptureFixture
) -> None:
    """The recording begins between keyframes, and one packet was lost."""
    source = bag(tmp_path / "drive", recorded([p for p in packets(H264) if p.number not in (0, 1, 2, 13)]))
    assert segment(source, tmp_path / "out", "--json", tmp_path / "report.json") == 0
    assert numbers(tmp_path / "out") == [10, 11, 12, *range(20, 25)]
    (summary,) = report()
    problems = {entry["stamp_ns"]: entry["problem"] for entry in summary["undecodable_pictures"]}
    begins, lost = "the stream begins between keyframes", "a packet was lost"
    assert problems == {
        **{stamp_ns(number): f"waiting for a keyframe: {begins}" for number in range(3, 10)},
        **{stamp_ns(number): f"waiting for a keyframe: {lost}" for number in range(14, 20)},
    }
    out, error = capsys.readouterr()
    assert "segmented 8 images of 1 cameras, 13 skipped" in out
    assert error.count(f"was skipped: waiting for a keyframe: {lost}") == 6


def test_every_nth_image_and_the_temporal_filter(segment: Segment, tmp_path: Path) -> None:
    """Packets that are not segmented are decoded all the same."""
    source = bag(tmp_path / "drive", recorded(packets(H264)))
    assert segment(source, tmp_path / "out", "--every", "3", "--steady") == 0
    assert numbers(tmp_path / "out") == list(range(0, 25, 3))


def test_a_camera_recorded_raw_and_as_video_is_segmented_once(
    segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    raw = [
        Recorded("/front/image_raw", drives.IMAGE, m.log_ns + 5, drives.image(image(0), m.log_ns))
        for m in recorded(packets(H264))[::2]
    ]
    messages = sorted([*recorded(packets(H264)), *raw], key=lambda message: message.log_ns)
    assert segment(bag(tmp_path / "drive", messages), tmp_path / "out") == 0
    assert "segmented 25 images of 1 cameras" in capsys.readouterr().out
    assert segment(tmp_path / "drive", tmp_path / "video", "--topics", TOPIC_OF[FFMPEG]) == 0
    assert numbers(tmp_path / "video") == list(range(25))


def test_report_and_pick_take_video(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = str(bag(tmp_path / "drive", recorded(packets(H264_B), FOXGLOVE)))
    model = ("--model", str(random_model), *EXACT)
    assert main(["report", source, "--out", str(tmp_path / "page.html"), *model]) == 0
    assert "25 pictures" in capsys.readouterr().out
    assert main(["pick", source, "--out", str(tmp_path / "picked"), "--count", "2", *model]) == 0
    picked = sorted((tmp_path / "picked/train/images").iterdir())
    assert len(picked) == 2
    stamps = {f"{stamp_ns(n) // 10**9}.{stamp_ns(n) % 10**9:09d}": n for n in range(25)}
    for path in picked:
        assert number_of(cv2.imread(str(path))) == stamps[path.stem.rpartition("_")[2]]
    cut = str(bag(tmp_path / "cut", recorded(packets(H264)[4:])))
    assert main(["report", cut, "--out", str(tmp_path / "cut.html"), *model]) == 3
    assert "waiting for a keyframe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("strange", "PyAV .* cannot decode 'strange'"), ("hevc;gray12le;mono16;16UC1", "holds depth .16UC1")],
)
def test_video_that_cannot_be_decoded_is_named(
    encoding: str, words: str, segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = bag(tmp_path / "drive", recorded(packets(H264)[:3], encoding=encoding))
    assert segment(source, tmp_path / "out") == 1
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_without_pyav_video_is_named_with_what_to_install(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    frame = Recorded("/rear/image_raw", drives.IMAGE, START_NS, drives.image(image(0), START_NS))
    source = bag(tmp_path / "drive", [*recorded(packets(H264)[:3]), frame])
    monkeypatch.setitem(sys.modules, "av", None)
    assert segment(source, tmp_path / "out") == 0
    assert "holds video, which needs PyAV: pip install av; it is copied unchanged" in capsys.readouterr().err
    assert segment(source, tmp_path / "other", "--topics", "/front/image_raw") == 1
    assert "pip install av" in capsys.readouterr().err


def test_out_of_order_messages_are_counted_once(
    segment: Segment, tmp_path: Path, report: Callable[[], list[dict]]
) -> None:
    """Although video is read twice."""
    messages = recorded(packets(H264))
    messages[20], messages[22] = messages[22], messages[20]
    source = bag(tmp_path / "drive", messages)
    assert segment(source, tmp_path / "out", "--json", tmp_path / "report.json") == 0
    (summary,) = report()
    assert any("recorded times jump back: 2 messages" in note for note in summary["notes"]), json.dumps(
        summary
    )
    assert numbers(tmp_path / "out") == list(range(25))
