# SPDX-License-Identifier: Apache-2.0
"""Bags with video: every packet is carried over, and every image that it holds is segmented."""

from __future__ import annotations

import contextlib
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
    bag_of,
    carried,
    read_bag,
    results_of,
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
FIELDS = {
    FFMPEG: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
    "bool is_bigendian\nuint8[] data\n",
    FOXGLOVE: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
}
for name, fields in FIELDS.items():
    drives.STORE.register(get_types_from_msg(fields, name))
packets = lru_cache(maxsize=8)(stream)
Report = Callable[[], list[dict]]


def stamp_ns(number: int) -> int:
    """Of a camera whose rate varies."""
    return START_NS + number * PERIOD_NS + number % 3 * 7_000_000


def recorded(sent: Sequence[Packet], msgtype: str = FFMPEG, encoding: str = "h264") -> list[Recorded]:
    """Messages in the order in which the encoder sends the packets, stamped as their images, and others."""
    messages = []
    for order, packet in enumerate(sent):
        header = drives.header(stamp_ns(packet.number))
        data = np.frombuffer(packet.data, np.uint8)
        values = (header, 160, 120, encoding, packet.number, int(packet.key), False, data)
        if msgtype == FOXGLOVE:
            values = (header.stamp, header.frame_id, data, encoding)
        cdr = drives.STORE.serialize_cdr(drives.STORE.types[msgtype](*values), msgtype)
        log_ns = START_NS + order * PERIOD_NS
        messages.append(Recorded(TOPIC_OF[msgtype], msgtype, log_ns, bytes(cdr)))
        messages.append(Recorded("/chatter", "std_msgs/msg/String", log_ns + 1000, drives.text(f"{order}")))
    return messages


def bag(path: Path, messages: Sequence[Recorded], storage: str = "mcap") -> Path:
    """A bag; a database as Humble's, without definitions."""
    bag_of(path, messages, storage)
    if storage == "sqlite3":
        with contextlib.closing(sqlite3.connect(drives.storage_file(path))) as database:
            database.execute("DROP TABLE message_definitions")
    return path


def masks(out: Path) -> dict[int, np.ndarray]:
    """By stamp."""
    return {
        message.header.stamp.sec * 10**9 + message.header.stamp.nanosec: cv2.imdecode(
            np.asarray(message.data), cv2.IMREAD_UNCHANGED
        )
        for message in results_of(read_bag(out), "/front/segmentation/mask/compressed")
    }


def numbers(out: Path) -> list[int]:
    stamps = {stamp_ns(number): number for number in range(25)}
    return sorted(stamps[stamp] for stamp in masks(out))


@pytest.mark.parametrize(
    ("kind", "msgtype", "storage"),
    [
        (H264, FFMPEG, "mcap"),
        (H264_B, FFMPEG, "sqlite3"),
        (H264, FOXGLOVE, "sqlite3"),
        (H265_B, FOXGLOVE, "mcap"),
    ],
)
def test_every_image_is_segmented_and_every_packet_carried_over(
    kind: str, msgtype: str, storage: str, segment: Segment, segmenter: Segmenter, tmp_path: Path
) -> None:
    messages = recorded(packets(kind), msgtype, kind.partition(" ")[0])
    source = bag(tmp_path / "drive", messages, storage)
    assert segment(source, tmp_path / "out", "--outputs", "mask/compressed") == 0
    assert carried(read_bag(tmp_path / "out")) == messages
    found, order = masks(tmp_path / "out"), [packet.number for packet in packets(kind)]
    assert list(found) == [stamp_ns(number) for number in order]
    for number in (0, 7, 13, 24):  # encoding changes the images a little, and so the masks
        assert (found[stamp_ns(number)] == segmenter(image(number)).mask).mean() > 0.9
    with open_bag(tmp_path / "out", tmp_path) as written:
        video = next(c for c in written.connections if c.topic == TOPIC_OF[msgtype])
        frames = list(result_images(written, "mask", with_images=True))
    assert b"uint8[] data" in video.definition
    assert [number_of(f.camera_image) for f in frames if f.camera_image is not None] == order


@pytest.mark.parametrize(("kind", "msgtype"), [(H264, FOXGLOVE), (H265, FFMPEG)])
def test_with_start_decoding_begins_at_the_keyframe_before(
    kind: str, msgtype: str, segment: Segment, tmp_path: Path, report: Report
) -> None:
    source = bag(tmp_path / "drive", recorded(packets(kind), msgtype, kind))
    options = ("--start", "1.65", "--end", "2.25", "--json", tmp_path / "report.json")
    assert segment(source, tmp_path / "out", *options) == 0
    assert numbers(tmp_path / "out") == list(range(17, 23))
    assert report()[0]["undecodable"] == 0


def test_packets_without_an_image_are_counted_and_named(
    segment: Segment, tmp_path: Path, report: Report, capsys: pytest.CaptureFixture
) -> None:
    """The recording begins between keyframes, and one packet was lost. Every other image is wanted."""
    source = bag(tmp_path / "drive", recorded([p for p in packets(H264) if p.number not in (0, 1, 13)]))
    assert segment(source, tmp_path / "out", "--every", "2", "--json", tmp_path / "report.json") == 0
    assert numbers(tmp_path / "out") == [10, 12, 21, 23]
    problems = {entry["stamp_ns"]: entry["problem"] for entry in report()[0]["undecodable_images"]}
    begins, lost = "the stream begins between keyframes", "a packet was lost"
    assert problems == {
        **{stamp_ns(number): f"waiting for a keyframe: {begins}" for number in range(2, 10, 2)},
        **{stamp_ns(number): f"waiting for a keyframe: {lost}" for number in range(15, 20, 2)},
    }
    out, error = capsys.readouterr()
    assert "segmented 4 images of 1 cameras, 7 skipped" in out
    assert error.count(f"was skipped: waiting for a keyframe: {lost}") == 3


def test_report_and_pick_take_video(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = str(bag(tmp_path / "drive", recorded(packets(H264_B)[4:], FOXGLOVE)))
    model = ("--model", str(random_model), *EXACT)
    assert main(["report", source, "--out", str(tmp_path / "page.html"), *model]) == 3
    out, error = capsys.readouterr()
    assert "15 pictures" in out
    assert "waiting for a keyframe" in error
    assert main(["pick", source, "--out", str(tmp_path / "picked"), "--count", "2", *model]) == 3
    stamps = {f"{stamp_ns(n) // 10**9}.{stamp_ns(n) % 10**9:09d}": n for n in range(25)}
    picked = sorted((tmp_path / "picked/train/images").iterdir())
    assert len(picked) == 2
    for path in picked:
        assert number_of(cv2.imread(str(path))) == stamps[path.stem.rpartition("_")[2]]


def test_without_pyav_video_is_named_with_what_to_install(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    frame = Recorded("/rear/image_raw", drives.IMAGE, START_NS, drives.image(image(0), START_NS))
    source = bag(tmp_path / "drive", [*recorded(packets(H264)[:3]), frame])
    monkeypatch.setitem(sys.modules, "av", None)
    assert segment(source, tmp_path / "out") == 0
    assert "holds video, which needs PyAV: pip install av; it is copied unchanged" in capsys.readouterr().err
    assert segment(source, tmp_path / "other", "--topics", "/front/image_raw") == 1
