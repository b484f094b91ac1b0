# SPDX-License-Identifier: Apache-2.0
"""Bags as robots have them: topics that are no cameras, cameras that do not stamp, what else lies in the file."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import drives
import numpy as np
import pytest
import yaml
from conftest import Segment
from drives import COMPRESSED, IMAGE, PERIOD_NS, START_NS, Recorded, Topic, read_bag, storage_file, write_bag

from canet_ros.bags import mcap_format as mcap
from canet_ros.bags.bag import BagError
from canet_ros.bags.cameras import choose_cameras
from canet_ros.bags.frames import write_labels, write_masks
from canet_ros.bags.reading import open_bag

GREY = np.zeros((8, 8), np.uint16)
DEPTH, FLOAT, PACKED = (
    "/d435/depth/image_rect_raw",
    "/zed/depth",
    "/d435/depth/image_rect_raw/compressedDepth",
)


def camera(encoding: str, pixels: np.ndarray = GREY, name: str = DEPTH) -> Recorded:
    return Recorded(name, IMAGE, START_NS, drives.image(pixels, START_NS, encoding))


def bag_of(path: Path, *recorded: Recorded) -> Path:
    topics = {(m.topic, m.msgtype): Topic(m.topic, m.msgtype, drives.qos()) for m in recorded}
    return write_bag(path, recorded, topics=tuple(topics.values()))


def chosen(path: Path, *topics: str) -> tuple[list[str], list[str]]:
    said: list[str] = []
    with open_bag(path, path / "work") as bag:
        return [camera.topic for camera in choose_cameras(bag, topics, said.append)], said


def test_depth_and_video_are_no_cameras(tmp_path: Path) -> None:
    colour = camera("bgr8", np.zeros((8, 8, 3), np.uint8), "/d435/color/image_raw")
    infra = camera("mono16", name="/d435/infra")
    packed = Recorded(PACKED, COMPRESSED, START_NS, drives.compressed(GREY, START_NS, "png"))
    bag = bag_of(
        tmp_path / "bag",
        camera("16UC1"),
        camera("32FC1", GREY.astype(np.float32), FLOAT),
        packed,
        colour,
        infra,
    )
    cameras, said = chosen(bag)
    assert cameras == ["/d435/color/image_raw", "/d435/infra"]
    assert len(said) == 3
    assert all(
        any(sentence.startswith(f"{topic} holds depth") for sentence in said) for topic in (DEPTH, FLOAT)
    )
    assert chosen(bag, DEPTH)[0] == [DEPTH]
    with pytest.raises(BagError, match="holds depth"):
        chosen(bag, PACKED)
    with pytest.raises(BagError, match=r"no image topic; .*image_rect_raw holds depth"):
        chosen(bag_of(tmp_path / "depth", camera("16UC1")))


def test_pictures_without_stamps_or_with_the_same_are_all_written(segment: Segment, tmp_path: Path) -> None:
    frames = drives.pictures(4)
    recorded = [
        Recorded("/cam/image", IMAGE, START_NS + index * PERIOD_NS, drives.image(frame, 0))
        for index, frame in enumerate(frames[:2])
    ]
    recorded += [
        Recorded("/cam/image", IMAGE, START_NS + 10**9, drives.image(frame, 5)) for frame in frames[2:]
    ]
    assert segment(bag_of(tmp_path / "in", *recorded), tmp_path / "out") == 0
    with open_bag(tmp_path / "out", tmp_path) as bag:
        assert write_masks(bag, tmp_path / "masks") == len(list((tmp_path / "masks").glob("*.png"))) == 4
        assert write_labels(bag, tmp_path / "labels") == 4
    images = sorted((tmp_path / "labels" / "train" / "images").iterdir())
    found = [cv2.imread(str(path)) for path in images]
    assert len(found) == 4
    assert all(any(np.array_equal(picture, frame) for picture in found) for frame in frames)


def extras(path: Path) -> list[tuple[int, bytes]]:
    """Attachments and other programs' metadata in an mcap file."""
    kept = []
    for operation, _, content in mcap.records(path.read_bytes()[8:-8]):
        ours = content[4:10].tobytes() in (b"rosbag", b"canet_")
        if operation in (mcap.ATTACHMENT, mcap.METADATA) and not ours:
            kept.append((operation, bytes(content)))
    return kept


def test_attachments_and_metadata_are_carried_over(
    messages: Sequence[Recorded], segment: Segment, tmp_path: Path
) -> None:
    whole = storage_file(write_bag(tmp_path / "in", messages[:5])).read_bytes()
    names = mcap.text("calibration.yaml") + mcap.text("text/yaml")
    content = struct.pack("<QQ", 1, 2) + names + struct.pack("<Q", 3_000_000) + bytes(3_000_000) + bytes(4)
    added = mcap.record(mcap.ATTACHMENT, content)
    added += mcap.record(mcap.METADATA, mcap.text("vehicle") + mcap.texts({"id": "7"}))
    head = 8 + next(at + 9 + len(body) for _, at, body in mcap.records(whole[8:]))
    path = tmp_path / "drive.mcap"
    # Offsets in the index are wrong now, so the file is read without it; what comes out has one.
    path.write_bytes(whole[:head] + added + whole[head:-8])
    assert segment(path, tmp_path / "once.mcap", "--salvage") == 0
    assert segment(tmp_path / "once.mcap", tmp_path / "twice.mcap") == 0
    assert extras(path) == extras(tmp_path / "once.mcap") == extras(tmp_path / "twice.mcap") != []
    assert read_bag(tmp_path / "twice.mcap")
    assert segment(tmp_path / "once.mcap", tmp_path / "results.mcap", "--only-results") == 0
    assert extras(tmp_path / "results.mcap") == []


def test_metadata_of_a_version_to_come_is_no_damage(
    messages: Sequence[Recorded], segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_bag(tmp_path / "in", messages[:5])
    metadata = yaml.safe_load((source / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["version"] = 99
    (source / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    assert segment(source, tmp_path / "out") == 0
    assert "version 99, newer" in capsys.readouterr().err


def test_out_that_has_no_name(
    messages: Sequence[Recorded],
    segment: Segment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write_bag(tmp_path / "in", messages[:5])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert segment(source, ".") == 1
    assert "give the name of a new one" in capsys.readouterr().err
    assert not list((tmp_path / "here").iterdir())
