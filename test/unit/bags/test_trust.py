# SPDX-License-Identifier: Apache-2.0
"""Wrong times, ranges and counts in a bag: everything is read, or the loss is named."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import drives
import numpy as np
import pytest
from drives import (
    IMAGE,
    PERIOD_NS,
    START_NS,
    Recorded,
    Segment,
    Topic,
    bag_of,
    change_metadata,
    joined,
    read_bag,
    storage_file,
    write_bag,
)
from mcap.writer import Writer

from canet_ros.bags.reading import Bag, latched, open_bag
from canet_ros.cli import main

CAMERA = "/cam/image_raw"
STRING = "std_msgs/msg/String"
SECOND_NS = 10**9
ENGINE = ("--device", "cpu", "--engine", "onnxruntime", "--precision", "fp32")


def image(log_ns: int, topic: str = CAMERA) -> Recorded:
    """An image of noise."""
    noise = np.random.default_rng(log_ns % 2**32).integers(0, 256, (120, 160, 3), np.uint8)
    return Recorded(topic, IMAGE, log_ns, drives.image(noise, log_ns % 2**60))


def drive(path: Path, *parts: Sequence[Recorded], storage: str = "mcap", latched: Sequence[str] = ()) -> Path:
    """A bag of several files in this order."""
    bags = [
        bag_of(path.with_name(f"{path.name}.{number}"), part, storage, latched=latched)
        for number, part in enumerate(parts)
    ]
    return joined(path, *bags)


def chunks(path: Path, *times: Sequence[int], **options: Any) -> Path:
    """An mcap file of images, a chunk for each of these."""
    with path.open("wb") as stream:
        writer = Writer(stream, enable_crcs=False, **options)
        writer.start("ros2", "test")
        schema = writer.register_schema(IMAGE, "", b"")
        channel = writer.register_channel(CAMERA, "cdr", schema)
        for chunk in times:
            for log_ns in chunk:
                writer.add_message(channel, log_ns, image(log_ns).data, log_ns)
            writer.flush()
        writer.finish()
    return path


def times_in(bag: Bag, start_ns: int | None = None, end_ns: int | None = None) -> list[int]:
    return [message.log_ns for message in bag.messages(start_ns, end_ns)]


@pytest.mark.parametrize(
    ("start", "end"), [(6, 4), (0, 0), (6, 6), (-START_NS // SECOND_NS, -START_NS // SECOND_NS), (90, 99)]
)
def test_a_chunks_range_is_not_believed(start: int, end: int, tmp_path: Path) -> None:
    """Three images out of order in the second chunk, under a range that does not hold them."""
    times = [START_NS + second * SECOND_NS for second in (0, 1, 6, 5, 4, 7)]
    file = chunks(tmp_path / "whole.mcap", times[:2], times[2:5], times[5:])
    wrong = [max(0, START_NS + seconds * SECOND_NS) for seconds in (start, end)]
    data = file.read_bytes()
    right = struct.pack("<QQ", times[4], times[2])
    assert data.count(right) == 2  # in the chunk and in its index
    (tmp_path / "wrong.mcap").write_bytes(data.replace(right, struct.pack("<QQ", *wrong)))
    with open_bag(tmp_path / "wrong.mcap", tmp_path / "work") as bag:
        assert times_in(bag) == sorted(times)
        assert times_in(bag, times[4], times[2]) == [times[4], times[3]]
        assert bag.counts == {CAMERA: 6}
        assert not bag.losses.problems


def test_indexes_that_agree_with_each_other_and_not_with_the_messages(tmp_path: Path) -> None:
    times = [START_NS + second * SECOND_NS for second in range(6)]
    data = chunks(tmp_path / "whole.mcap", times[:3], times[3:]).read_bytes()
    for time_ns in times:
        whole = struct.pack("<Q", time_ns)
        in_message = struct.pack("<QQ", time_ns, time_ns)  # log and publish time
        data = data.replace(in_message, b"message%d" % times.index(time_ns) + bytes(8))
        data = data.replace(whole, struct.pack("<Q", time_ns + 1000 * SECOND_NS))
        data = data.replace(b"message%d" % times.index(time_ns) + bytes(8), in_message)
    (tmp_path / "wrong.mcap").write_bytes(data)
    with open_bag(tmp_path / "wrong.mcap", tmp_path / "work") as bag:
        assert times_in(bag, times[1], times[4]) == times[1:4]
        assert "differ from those of the messages" in str(bag.losses.problems)


def test_statistics_that_count_more_than_is_there(
    segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(chunks(tmp_path / "whole.mcap", range(START_NS, START_NS + 4)).read_bytes())
    at = data.rindex(struct.pack("<BQ", 11, 56))  # Statistics with one channel
    counts = data.rindex(struct.pack("<HQ", 1, 4), at, at + 65)
    data[counts + 2] = data[at + 9] = 9
    (tmp_path / "wrong.mcap").write_bytes(data)
    assert segment(tmp_path / "wrong.mcap", tmp_path / "out") == 3
    assert "at least 5 messages are lost" in capsys.readouterr().err


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_chunk_that_neither_index_nor_statistics_know(chunk: int, tmp_path: Path) -> None:
    times = [START_NS + second * SECOND_NS for second in range(6)]
    data = bytearray(chunks(tmp_path / "whole.mcap", times[:2], times[2:4], times[4:]).read_bytes())
    statistics = data.rindex(struct.pack("<BQ", 11, 56))
    counts = data.rindex(struct.pack("<HQ", 1, 6), statistics, statistics + 65)
    data[counts + 2] = data[statistics + 9] = 4
    (at,) = struct.unpack_from("<Q", data, len(data) - 28)  # the summary
    indexes = []
    while data[at] != 2:
        if data[at] == 8:
            indexes.append(at)
        at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    data[indexes[chunk]] = 0x80  # a private record, which readers pass over
    (tmp_path / "wrong.mcap").write_bytes(data)
    with open_bag(tmp_path / "wrong.mcap", tmp_path / "work") as bag:
        assert times_in(bag) == times
        assert bag.counts == {CAMERA: 6}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_files_are_put_in_the_order_of_time(storage: str, segment: Segment, tmp_path: Path) -> None:
    """The second file is of before the first, the third overlaps both."""
    late, early, across = (
        [image(START_NS + i * SECOND_NS) for i in r] for r in (range(10, 14), range(4), range(2, 12, 3))
    )
    bag = drive(tmp_path / "drive", late, early, across, storage=storage)
    everything = sorted(m.log_ns for m in (*late, *early, *across))
    with open_bag(bag, tmp_path / "work") as opened:
        assert times_in(opened) == everything
        start_ns, end_ns = everything[3], everything[-2]
        cut = [log_ns for log_ns in everything if start_ns <= log_ns < end_ns]
        assert times_in(opened, start_ns, end_ns) == cut
        assert not opened.losses.problems
    assert segment(bag, tmp_path / "out") == 0
    written = [m.log_ns for m in read_bag(tmp_path / "out") if m.topic == CAMERA]
    assert written == everything


@pytest.mark.parametrize("command", ["report", "pick"])
def test_report_and_pick_look_at_every_file(
    command: str, random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late, early = ([image(START_NS + i * SECOND_NS) for i in r] for r in (range(10, 16), range(6)))
    bag = drive(tmp_path / "drive", late, early)
    out = tmp_path / ("page.html" if command == "report" else "picked")
    options = [] if command == "report" else ["--count", "12"]
    model = ["--model", str(random_model), *ENGINE]
    assert main([command, str(bag), "--out", str(out), *options, *model]) == 0
    assert capsys.readouterr().out.startswith("12 ")


def test_a_report_takes_images_of_the_whole_drive(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message of a clock that was not set, on another topic."""
    recorded = [
        Recorded("/boot", STRING, 0, drives.text("x")),
        *(image(START_NS + i * SECOND_NS) for i in range(12)),
    ]
    bag = bag_of(tmp_path / "drive", recorded)
    model = ["--model", str(random_model), *ENGINE]
    assert main(["report", str(bag), "--out", str(tmp_path / "page.html"), "--frames", "6", *model]) == 0
    assert capsys.readouterr().out.startswith("6 ")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_the_newest_latched_message_is_that_of_all_files(storage: str, tmp_path: Path) -> None:
    def text_message(value: str, second: int) -> Recorded:
        return Recorded("/calibration", STRING, START_NS + second * SECOND_NS, drives.text(value))

    late, early = (
        [text_message("new", 5), text_message("newer", 8), image(START_NS + 9 * SECOND_NS)],
        [text_message("old", 0), image(START_NS)],
    )
    source = drive(tmp_path / "drive", late, early, storage=storage, latched=["/calibration"])
    with open_bag(source, tmp_path / "work") as bag:
        found = [m.data for m in latched(bag, START_NS + 7 * SECOND_NS)]
    assert found == [drives.text("new")]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_times_at_both_ends_of_what_can_be_stored(storage: str, segment: Segment, tmp_path: Path) -> None:
    last = 2**64 - 1 if storage == "mcap" else 2**63 - 1
    recorded = [image(t) for t in (0, START_NS, last - 1, last)]
    source = bag_of(tmp_path / "in", recorded, storage)
    assert segment(source, tmp_path / "out") == 0
    with open_bag(tmp_path / "out", tmp_path / "work") as bag:
        masks = [m.log_ns for m in bag.messages() if m.connection.topic.endswith("mask/compressed")]
    assert masks == [0, START_NS, last - 1, last]


def test_rows_out_of_order_and_times_wrong_in_metadata(segment: Segment, tmp_path: Path) -> None:
    recorded = [image(START_NS + i * PERIOD_NS) for i in (3, 0, 2, 1)]
    source = write_bag(tmp_path / "in", recorded, "sqlite3", topics=[Topic(CAMERA, IMAGE, drives.qos())])
    wrong = {"starting_time": {"nanoseconds_since_epoch": 2**62}, "duration": {"nanoseconds": 0}}
    change_metadata(source, **wrong)
    assert segment(source, tmp_path / "out", "--start", "0.1", "--end", "0.3") == 0
    written = [m.log_ns for m in read_bag(tmp_path / "out") if m.topic == CAMERA]
    assert written == [START_NS + PERIOD_NS, START_NS + 2 * PERIOD_NS]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_fewer_messages_than_announced(
    storage: str, segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In metadata.yaml, which lies beside a file that is given alone."""
    source = bag_of(tmp_path / "in", [image(START_NS + i) for i in range(3)], storage)
    change_metadata(source, message_count=7)
    given = storage_file(source) if storage == "sqlite3" else source
    assert segment(given, tmp_path / "out") == 3
    assert "counts 7 messages, but 3 could be read" in capsys.readouterr().err
