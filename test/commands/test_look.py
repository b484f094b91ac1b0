# SPDX-License-Identifier: Apache-2.0
"""What people look at: video, masks, labels, the report's page, and the frames picked for labelling."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import drives
import numpy as np
import pytest
from drives import EXACT, PERIOD_NS, START_NS, TOPICS, Recorded, Segment, read_bag, results_of, write_bag

from canet_ros.bags.samples import Candidate, select
from canet_ros.cli import main


@pytest.fixture(scope="module")
def source(messages: Sequence[Recorded], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("look") / "drive", messages)


def test_masks_labels_and_video(source: Path, segment: Segment, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    wanted = ("--masks", tmp_path / "masks", "--labels", tmp_path / "labels", "--video", tmp_path / "out.mp4")
    assert segment(source, tmp_path / "out") == 0
    assert main([*map(str, ("extract", tmp_path / "out", *wanted))]) == 0
    masks = list(results_of(read_bag(tmp_path / "out"), "/front/segmentation/mask/compressed"))
    with (tmp_path / "masks" / "stamps.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["camera"] == "/front"]
    assert [int(row["stamp_ns"]) for row in rows] == [START_NS + index * PERIOD_NS for index in range(5)]
    for row, message in zip(rows, masks):
        expected = cv2.imdecode(np.asarray(message.data), cv2.IMREAD_UNCHANGED)
        found = cv2.imread(str(tmp_path / "masks" / row["file"]), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(found, expected)
        label = cv2.imread(str(tmp_path / "labels" / "train" / "labels" / row["file"]), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(label, expected)
    images = sorted((tmp_path / "labels" / "train" / "images").glob("front_*.png"))
    for path, frame in zip(images, drives.images(5)):
        assert np.array_equal(cv2.imread(str(path)), frame)
    for camera in ("front", "rear"):
        with av.open(str(tmp_path / f"out_{camera}.mp4")) as video:
            frames = list(video.decode(video=0))
            assert [round(float(frame.time), 2) for frame in frames] == [0.0, 0.1, 0.2, 0.3, 0.4]


def test_the_report_needs_nothing_but_itself(source: Path, random_model: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", str(source), "--out", str(page), "--model", str(random_model), *EXACT]) == 0
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    data = json.loads(re.search(r"const data=(.*);\n", text).group(1))
    front = data["cameras"][0]
    assert front["topic"] == "/front/image_raw"
    assert front["t"] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert all(abs(sum(shares) - 1) < 0.01 for shares in front["shares"])
    assert front["lowest"][0] == int(np.argmin(front["confidence"]))
    for topic in TOPICS:
        assert f"<td>{topic}</td>" in text


@pytest.mark.parametrize("command", ["report", "pick"])
def test_losses_are_reported(
    command: str,
    messages: Sequence[Recorded],
    random_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = [index for index, message in enumerate(messages) if message.topic == "/front/image_raw"]
    broken = replace(messages[images[0]], data=messages[images[0]].data[:200])
    bag = write_bag(tmp_path / "drive", [*messages[: images[0]], broken, *messages[images[0] + 1 :]])
    out = ["--out", str(tmp_path / "out"), "--model", str(random_model), *EXACT]
    assert main([command, str(bag), *out]) == 3
    assert f"{bag}: /front/image_raw: skipped an image: " in capsys.readouterr().err


def test_picked_frames_are_spread_over_what_changes_not_over_time() -> None:
    second, way = 10**9, np.concatenate((np.zeros(50), np.arange(1, 13)))
    unsure = np.where(np.arange(62) % 3, 0.2, 0.3)
    drive = [
        Candidate(index * second, float(unsure[index]), np.full(2, way[index], np.float32))
        for index in range(62)
    ]
    # Fifty seconds at a traffic light are one stretch with the first images after it.
    assert select(drive, 4) == [0, 54, 57, 60]


def test_picks_are_written_in_the_layout_of_training(
    source: Path, random_model: Path, tmp_path: Path
) -> None:
    arguments = ["--out", str(tmp_path / "picked"), "--count", "3", "--model", str(random_model), *EXACT]
    assert main(["pick", str(source), *arguments]) == 0
    images = sorted(path.name for path in (tmp_path / "picked" / "train" / "images").iterdir())
    labels = sorted(path.name for path in (tmp_path / "picked" / "train" / "labels").iterdir())
    # The drive lasts half a second, and no two picks of a camera are from the same.
    assert images == labels
    assert len(images) == 2
    assert main(["pick", str(source), *arguments, "--format", "labelme"]) == 0
    shapes = sorted(path.stem for path in (tmp_path / "picked" / "train" / "labelme").iterdir())
    assert shapes == [Path(name).stem for name in images]


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ((), "give one or more of --video, --masks and --labels"),
        (("--video", "drive.gif"), "give the video a name that ends in"),
        (("--masks", "drive/metadata.yaml/masks"), "cannot write"),
        (("--labels", "drive/metadata.yaml/labels"), "cannot write"),
        (("--masks", "masks"), "has no topic .../segmentation/mask: segment it with canet segment-bag"),
    ],
)
def test_what_cannot_be_extracted_is_one_line(
    options: Sequence[str], printed: str, source: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(source.parent)
    assert main(["extract", "drive", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert printed in line


def test_a_damaged_bag_is_extracted_as_far_as_it_can_be_read(
    source: Path, segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(source, tmp_path / "out.mcap") == 0
    data = (tmp_path / "out.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: len(data) * 3 // 4])
    assert main(["extract", str(tmp_path / "cut.mcap"), "--masks", str(tmp_path / "masks")]) == 3
    assert "truncated" in capsys.readouterr().err
    assert list((tmp_path / "masks").glob("*.png"))
