# SPDX-License-Identifier: Apache-2.0
"""Bags as robots have them: topics that are not cameras, cameras that do not stamp, CDR of any writer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import drives
import numpy as np
import pytest
from drives import (
    COMPRESSED,
    EXACT,
    IMAGE,
    PERIOD_NS,
    START_NS,
    Recorded,
    Segment,
    Topic,
    bag_of,
    read_bag,
    storage_file,
    write_bag,
)
from mcap.reader import make_reader
from mcap.writer import Writer

from canet_ros.bags.bag import COMPRESSED_IMAGE, BagError
from canet_ros.bags.cameras import choose_cameras
from canet_ros.bags.frames import write_labels, write_masks
from canet_ros.bags.label_folder import LabelFolder
from canet_ros.bags.message_types import MessageError, from_cdr, header_stamp_ns, to_cdr
from canet_ros.bags.reading import open_bag
from canet_ros.cli import main

GREY = np.zeros((8, 8), np.uint16)
DEPTH, FLOAT, PACKED = (
    "/d435/depth/image_rect_raw",
    "/zed/depth",
    "/d435/depth/image_rect_raw/compressedDepth",
)


def camera(encoding: str, pixels: np.ndarray = GREY, name: str = DEPTH) -> Recorded:
    return Recorded(name, IMAGE, START_NS, drives.image(pixels, START_NS, encoding))


def select(path: Path, *topics: str) -> tuple[list[str], list[str]]:
    printed: list[str] = []
    with open_bag(path, path / "work") as bag:
        return [camera.topic for camera in choose_cameras(bag, topics, printed.append)], printed


def test_depth_is_not_a_camera(tmp_path: Path) -> None:
    """It begins a minute after the camera, behind a message of time 0."""
    boot = Recorded("/clock_not_set", STRING, 0, drives.text("boot"))
    colour = camera("bgr8", np.zeros((8, 8, 3), np.uint8), "/d435/color/image_raw")
    infra = camera("mono16", name="/d435/infra")
    packed = Recorded(PACKED, COMPRESSED, START_NS, drives.compressed(GREY, START_NS, "png"))
    depth = [camera("16UC1"), camera("32FC1", GREY.astype(np.float32), FLOAT), packed]
    late = [replace(message, log_ns=START_NS + 60 * 10**9) for message in depth]
    bag = bag_of(tmp_path / "bag", [boot, *late, colour, infra])
    cameras, printed = select(bag)
    assert cameras == ["/d435/color/image_raw", "/d435/infra"]
    assert len(printed) == 3
    assert all(
        any(sentence.startswith(f"{topic} holds depth") for sentence in printed) for topic in (DEPTH, FLOAT)
    )
    for topic in (DEPTH, FLOAT, PACKED):
        with pytest.raises(BagError, match=f"{topic} holds depth"):
            select(bag, topic)
    with pytest.raises(BagError, match=r"no image topic; .*image_rect_raw holds depth"):
        select(bag_of(tmp_path / "depth", [camera("16UC1")]))


def test_images_without_stamps_or_with_the_same_are_all_written(segment: Segment, tmp_path: Path) -> None:
    frames = drives.images(4)
    recorded = [
        Recorded("/cam/image", IMAGE, START_NS + index * PERIOD_NS, drives.image(frame, 0))
        for index, frame in enumerate(frames[:2])
    ]
    recorded += [
        Recorded("/cam/image", IMAGE, START_NS + 10**9, drives.image(frame, 5)) for frame in frames[2:]
    ]
    assert segment(bag_of(tmp_path / "in", recorded), tmp_path / "out") == 0
    with open_bag(tmp_path / "out", tmp_path) as bag:
        masks, labels = LabelFolder(tmp_path / "masks", in_splits=False), LabelFolder(tmp_path / "labels")
        write_masks(bag, masks)
        write_labels(bag, labels)
    assert masks.added == labels.added == len(list((tmp_path / "masks").glob("*.png"))) == 4
    images = sorted((tmp_path / "labels" / "train" / "images").iterdir())
    found = [cv2.imread(str(path)) for path in images]
    assert len(found) == 4
    assert all(any(np.array_equal(image, frame) for image in found) for frame in frames)


def extras(path: Path) -> list[object]:
    """Attachments and other programs' metadata in an mcap file."""
    with path.open("rb") as stream:
        reader = make_reader(stream)
        metadata = [entry for entry in reader.iter_metadata() if entry.name != "rosbag2"]
        return [*reader.iter_attachments(), *metadata]


def test_attachments_and_metadata_are_carried_over(segment: Segment, tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    with path.open("wb") as out:
        writer = Writer(out)
        writer.start("ros2", "test")
        channel = writer.register_channel("/cam", "cdr", writer.register_schema(IMAGE, "", b""))
        for time in (START_NS, START_NS + 2 * PERIOD_NS):
            writer.add_message(channel, time, drives.image(drives.images(1)[0], time), time)
        writer.add_attachment(1, 2, "calibration.yaml", "text/yaml", bytes(3_000_000))
        writer.add_attachment(0, 0, "empty", "", b"")
        writer.add_metadata("vehicle", {"id": "7"})
        writer.finish()
    assert segment(path, tmp_path / "once.mcap") == 0
    assert segment(tmp_path / "once.mcap", tmp_path / "twice", "--split-duration", "0.1") == 0
    first = sorted((tmp_path / "twice").glob("*.mcap"))[0]
    assert extras(path) == extras(tmp_path / "once.mcap") == extras(first)
    assert len(extras(path)) == 3
    assert segment(tmp_path / "once.mcap", tmp_path / "results.mcap", "--only-results") == 0
    assert extras(tmp_path / "results.mcap") == []


def test_a_stream_with_another_qos_in_the_next_split_is_the_same_camera(
    tmp_path: Path, segment: Segment
) -> None:
    messages = drives.drive_messages(drives.images(4))
    half = len(messages) // 2
    eager = [Topic(t.name, t.msgtype, drives.qos("RELIABLE", depth=7)) for t in drives.TOPICS.values()]
    parts = (
        write_bag(tmp_path / "first", messages[:half]),
        write_bag(tmp_path / "second", messages[half:], topics=eager),
    )
    assert segment(drives.joined(tmp_path / "bag", *parts), tmp_path / "out") == 0
    written = read_bag(tmp_path / "out")
    assert drives.carried(written) == messages
    assert sum(message.topic.endswith("/mask/compressed") for message in written) == 8


def other_transport(
    topic: str, text: str, index: int = 0, data: bytes = b"\x40\0\0\0\x30no image"
) -> Recorded:
    """A CompressedImage whose data is no image."""
    time, types = START_NS + index * PERIOD_NS, drives.STORE.types
    message = types[COMPRESSED](drives.header(time), text, np.frombuffer(data, np.uint8))
    return Recorded(topic, COMPRESSED, time, bytes(drives.STORE.serialize_cdr(message, COMPRESSED)))


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("/front/image_raw/zstd", "zstd"),
        ("/front/image_raw/compressedDepth", "32FC1; compressedDepth png"),
        ("/front/image_raw/ffmpeg", "libx264"),
        ("/front/packed", "draco"),
    ],
)
def test_transports_without_images_are_named_once_and_carried_over(
    topic: str, text: str, segment: Segment, random_model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    frames = drives.images(3)
    recorded = [other_transport(topic, text, index) for index in range(3)]
    for index, frame in enumerate(frames):
        time = START_NS + index * PERIOD_NS + 1
        recorded.append(Recorded("/front/image_raw", IMAGE, time, drives.image(frame, time)))
    bag = bag_of(tmp_path / "bag", recorded)
    assert segment(bag, tmp_path / "out") == 0
    topics = [message.topic for message in read_bag(tmp_path / "out")]
    assert topics.count("/front/segmentation/mask/compressed") == topics.count(topic) == 3
    for command in ("report", "pick"):
        arguments = ["--out", str(tmp_path / command), "--model", str(random_model), *EXACT]
        assert main([command, str(bag), *arguments]) == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if topic in line]
    assert len(printed) == 3, "one line of each command"
    assert all("it is copied unchanged" in line for line in printed)


def forms(raw: Sequence[int], compressed: Sequence[int]) -> list[Recorded]:
    """Images of one camera in both forms, at these multiples of the period."""
    pixels, topic = np.zeros((8, 8, 3), np.uint8), "/front/image_raw"
    images, packed = drives.image(pixels, START_NS), drives.compressed(pixels, START_NS)
    recorded = [Recorded(topic, IMAGE, START_NS + index * PERIOD_NS, images) for index in raw]
    times = [START_NS + index * PERIOD_NS + 1 for index in compressed]
    return recorded + [Recorded(f"{topic}/compressed", COMPRESSED, time, packed) for time in times]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize(
    ("raw", "compressed", "window", "taken"),
    [
        ((3, 9), range(20), (0, 20), "compressed"),
        (range(20), range(20), (0, 20), "raw"),
        (range(15), range(10, 20), (0, 20), "raw"),
        (range(15), range(10, 20), (12, 20), "compressed"),
    ],
)
def test_the_form_with_more_images_is_used(
    storage: str, raw: Sequence[int], compressed: Sequence[int], window: tuple[int, int], taken: str, tmp_path: Path
) -> None:  # fmt: skip
    bag = bag_of(tmp_path / "bag", forms(raw, compressed), storage)
    start, end = (START_NS + index * PERIOD_NS for index in window)
    printed: list[str] = []
    with open_bag(bag, bag / "work") as opened:
        limits = (None, None) if window == (0, 20) else (start, end)
        (camera,) = choose_cameras(opened, (), printed.append, limits)
    names = {"raw": "/front/image_raw", "compressed": "/front/image_raw/compressed"}
    counts = [sum(index in range(*window) for index in indexes) for indexes in (raw, compressed)]
    assert camera.topic == names[taken]
    assert printed == [
        f"/front/image_raw was recorded raw ({counts[0]} images) and compressed ({counts[1]}); "
        f"using {names[taken]}"
    ]


def transforms(*children: str, x: float = 0.0) -> bytes:
    types = drives.STORE.types
    entries = [
        types["geometry_msgs/msg/TransformStamped"](
            drives.header(START_NS),
            child,
            types["geometry_msgs/msg/Transform"](
                types["geometry_msgs/msg/Vector3"](x, 0.0, 0.0),
                types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
            ),
        )
        for child in children
    ]
    return bytes(drives.STORE.serialize_cdr(types[TF](entries), TF))


TF, STRING = "tf2_msgs/msg/TFMessage", "std_msgs/msg/String"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_cut_begins_with_the_last_latched_messages(
    storage: str, indexed: bool, segment: Segment, tmp_path: Path
) -> None:
    image = camera("bgr8", np.zeros((120, 160, 3), np.uint8), "/front/image_raw")
    recorded = [
        Recorded("/tf_static", TF, START_NS, transforms("laser", "camera")),
        Recorded("/tf_static", TF, START_NS + 1, transforms("wheel", x=1.0)),
        Recorded("/tf_static", TF, START_NS + 2, transforms("wheel", x=2.0)),
        Recorded("/robot_description", STRING, START_NS + 3, drives.text("old")),
        Recorded("/chatter", STRING, START_NS + 4, drives.text("not latched")),
        *(replace(image, log_ns=START_NS + 5 + i * PERIOD_NS) for i in range(30)),
        Recorded("/robot_description", STRING, START_NS + 10 * PERIOD_NS + 1, drives.text("new")),
        Recorded("/robot_description", STRING, START_NS + 29 * PERIOD_NS, drives.text("later")),
    ]
    bag = bag_of(tmp_path / "bag", recorded, storage, latched=["/tf_static", "/robot_description"])
    if not indexed:
        data = storage_file(bag).read_bytes()
        storage_file(bag).write_bytes(data[: int(len(data) * 0.98)])
    assert segment(bag, tmp_path / "out", "--start", 2, "--end", 2.5, "--salvage") == 0
    cut_ns = START_NS + 2 * 10**9
    written = [m for m in drives.carried(read_bag(tmp_path / "out")) if m.topic != "/front/image_raw"]
    assert [(m.log_ns, m.data) for m in written] == [
        (cut_ns, transforms("laser", "camera")),
        (cut_ns, transforms("wheel", x=2.0)),
        (cut_ns, drives.text("new")),
    ]


STRINGS = {
    "UTF-8": "kaméra\0".encode(),
    "Latin-1": "kaméra\0".encode("latin-1"),
    "unterminated": b"camera",
    "of length 0": b"",
    "empty": b"\0",
    "from a buffer of fixed size": b"camera\0\0\0\0\0",
    "with a rest behind its end": b"cam\0era\0",
}


def compressed_image(frame_id: bytes, format_text: bytes) -> bytes:
    body = struct.pack("<iI", 5, 6)
    for string in (frame_id, format_text, b"\1\2\3"):
        body += bytes(-len(body) % 4) + struct.pack("<I", len(string)) + string
    return b"\0\1\0\0" + body


@pytest.mark.parametrize("kind", STRINGS)
def test_strings_are_those_that_rclpy_takes(kind: str) -> None:
    serialization = pytest.importorskip("rclpy.serialization")
    message_type = pytest.importorskip("sensor_msgs.msg").CompressedImage
    for data in (compressed_image(STRINGS[kind], b"jpeg\0"), compressed_image(b"camera\0", STRINGS[kind])):
        message, expected = (
            from_cdr(data, COMPRESSED_IMAGE),
            serialization.deserialize_message(data, message_type),
        )
        assert (message.header.frame_id, message.format) == (expected.header.frame_id, expected.format)
        assert (header_stamp_ns(message.header), bytes(message.data)) == (5_000_000_006, b"\1\2\3")
        # What is written of it is plain.
        again = serialization.deserialize_message(to_cdr(message, COMPRESSED_IMAGE), message_type)
        assert again == expected


BEYOND_ITS_END = b"\0\1\0\0" + bytes(8) + struct.pack("<I", 5000) + b"camera\0\0"


@pytest.mark.parametrize(
    "data", [b"", bytes(8), compressed_image(b"camera\0", b"jpeg\0")[:-2], BEYOND_ITS_END]
)
def test_bytes_that_are_no_such_message(data: bytes) -> None:
    with pytest.raises(MessageError, match=f"{len(data)} bytes are not a {COMPRESSED_IMAGE}"):
        from_cdr(data, COMPRESSED_IMAGE)
