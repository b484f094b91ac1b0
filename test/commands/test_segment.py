# SPDX-License-Identifier: Apache-2.0
"""``canet segment`` on images and videos, and its errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import drives
import numpy as np
import pytest
from drives import EXACT

from canet_ros.cli import main
from canet_ros.commands import segment as segment_command
from canet_ros.pipeline import video_file
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import StreetDrive


@pytest.fixture(scope="module")
def drive() -> StreetDrive:
    return StreetDrive(seed=5, width=160, height=120)


def segment(random_model: Path, out: Path, *inputs: object) -> int:
    engine = ["--engine", "onnxruntime", "--precision", "fp32", "--device", "cpu", "--resolution", ""]
    return main(["segment", *map(str, inputs), "--out", str(out), "--model", str(random_model), *engine])


def read_mask(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def write(path: Path, drive: StreetDrive, index: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), drive.frame(index).image)
    return path


def test_images_of_a_folder_and_a_file(
    random_model: Path, segmenter: Segmenter, drive: StreetDrive, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    images = tmp_path / "images"
    for index in range(2):
        write(images / f"{index}.png", drive, index)
    write(tmp_path / "single.png", drive, 9)
    (images / "broken.png").write_bytes(b"not an image")
    (images / "gone.png").symlink_to(tmp_path / "nowhere")
    (images / "folder.png").mkdir()
    assert segment(random_model, tmp_path / "out", images, tmp_path / "single.png") == 1
    assert "2 of 5 could not be read: " in capsys.readouterr().err
    for name, index in (("0", 0), ("1", 1), ("single", 9)):
        mask = read_mask(tmp_path / "out" / f"{name}_mask.png")
        assert np.array_equal(mask, segmenter(drive.frame(index).image).mask)
        assert read_mask(tmp_path / "out" / f"{name}_overlay.jpg").shape == (120, 160, 3)
    assert len(list((tmp_path / "out").iterdir())) == 6


def video_of(path: Path, frames: Sequence[np.ndarray]) -> Path:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    if not video.isOpened():
        pytest.skip("OpenCV cannot write MJPG")
    for frame in frames:
        video.write(frame)
    video.release()
    return path


@pytest.mark.parametrize("with_pyav", [True, False])
def test_a_video_gives_a_video_and_masks_on_request(
    with_pyav: bool, random_model: Path, segmenter: Segmenter, drive: StreetDrive, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if with_pyav:
        pytest.importorskip("av")
    else:
        monkeypatch.setattr(video_file, "has_pyav", lambda: False)
        monkeypatch.setattr(segment_command, "has_pyav", lambda: False)
    path = video_of(tmp_path / "drive.avi", [drive.frame(index).image for index in range(3)])
    assert segment(random_model, tmp_path / "out", path) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(
        rf"3 frames, \d+\.\d frames/s, onnxruntime fp32 on cpu: {tmp_path}/out\n", printed.out
    )
    assert ("pip install av" in printed.err) != with_pyav
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["drive_overlay.mp4"]
    written = cv2.VideoCapture(str(tmp_path / "out" / "drive_overlay.mp4"))
    assert round(written.get(cv2.CAP_PROP_FPS)) == 10
    assert [written.read()[0] for _ in range(4)] == [True] * 3 + [False]
    assert segment(random_model, tmp_path / "out", path) == 1
    assert "drive_overlay.mp4 exists" in capsys.readouterr().err
    assert segment(random_model, tmp_path / "out", path, "--masks", "--force") == 0
    source = cv2.VideoCapture(str(path))
    for index in range(3):
        mask = read_mask(tmp_path / "out" / f"drive_00000{index}_mask.png")
        assert np.array_equal(mask, segmenter(source.read()[1]).mask)


def test_options_of_the_pipeline_mean_what_they_mean_for_bags(sharp_model: Path, tmp_path: Path) -> None:
    """Masks, groups and the temporal filter of a video, against a bag of the same frames."""
    noise = np.random.default_rng(1)
    still = StreetDrive(seed=5, width=160, height=120).frame(0).image.astype(np.int16)
    frames = [np.clip(still + noise.normal(0, 8, still.shape), 0, 255).astype(np.uint8) for _ in range(6)]
    path = video_of(tmp_path / "drive.avi", frames)
    ignored = np.zeros((12, 16), np.uint8)
    ignored[9:, :5] = 255
    cv2.imwrite(str(tmp_path / "ignored.png"), ignored)
    options = ["--groups", "{drivable: [road]}", "--min-confidence", "0.4", "--regions", "0,20,160,90"]
    options += ["--rotations", "180", "--ignore-masks", str(tmp_path / "ignored.png"), "--steady"]
    engine = [*EXACT, "--resolution", "camera", "--model", str(sharp_model)]
    out, video = tmp_path / "out", cv2.VideoCapture(str(path))
    assert main(["segment", str(path), "--out", str(out), "--masks", *options, *engine]) == 0
    topic = drives.TOPICS["/front/image_raw"]
    recorded = []
    for index in range(6):
        stamp = drives.START_NS + index * drives.PERIOD_NS
        recorded.append(
            drives.Recorded(topic.name, topic.msgtype, stamp, drives.image(video.read()[1], stamp))
        )
    bag = drives.write_bag(tmp_path / "bag", recorded, topics=[topic])
    outputs = ["--outputs", "mask", "groups/drivable"]
    assert main(["segment-bag", str(bag), str(tmp_path / "segmented"), *options, *outputs, *engine]) == 0
    in_bag = drives.read_bag(tmp_path / "segmented")
    for name, file in (("mask", "mask"), ("groups/drivable", "group_drivable")):
        for index, message in enumerate(drives.results_of(in_bag, f"/front/segmentation/{name}")):
            found = read_mask(out / f"drive_00000{index}_{file}.png")
            assert np.array_equal(found.reshape(-1), message.data)
            assert len(np.unique(found)) > 1


def test_each_input_has_its_own_camera_transform(
    random_model: Path, drive: StreetDrive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = drive.frame(0).image
    for name, pixels in (("a", image), ("b", image[::-1, ::-1]), ("c", image[:40, :40])):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / f"{name}.png"), pixels)
    inputs = (tmp_path / "a", tmp_path / "b")
    assert segment(random_model, tmp_path / "out", *inputs, "--rotations", 0, 180) == 0
    a, b = (read_mask(tmp_path / "out" / f"{name}_mask.png") for name in "ab")
    assert np.array_equal(a[::-1, ::-1], b)
    assert segment(random_model, tmp_path / "out2", *inputs, "--rotations", 0, 0, 0) == 1
    assert "rotations has 3 entries for 2 cameras" in capsys.readouterr().err
    regions = ("--regions", "", "0,0,160,100")
    assert segment(random_model, tmp_path / "out3", tmp_path / "a", tmp_path / "c", *regions) == 1
    assert "1 of 2 could not be read: c: the region" in capsys.readouterr().err
    assert (tmp_path / "out3" / "a_mask.png").exists()


@pytest.mark.parametrize("command", ["segment", "report", "pick", "extract", "demo --input"])
def test_addresses_are_refused_with_what_to_use(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command.split(), "rtsp://camera/stream", "--out", "out"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "rtsp://camera/stream is an address" in line
    assert "canet.launch.py" in line


def test_the_aspect_ratio_is_kept_by_default(
    random_model: Path, drive: StreetDrive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = cv2.resize(drive.frame(0).image, (320, 120))
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    arguments = ["segment", str(tmp_path / "wide.png"), "--model", str(random_model), *EXACT[:-2], "--out"]
    assert main([*arguments, str(tmp_path / "out")]) == 0
    assert "squeezed" not in capsys.readouterr().err
    segmenter = Segmenter.load(random_model, "cpu", "onnxruntime", "fp32", "camera")
    assert np.array_equal(read_mask(tmp_path / "out" / "wide_mask.png"), segmenter(wide).mask)
    assert main([*arguments, str(tmp_path / "out2"), "--resolution", "160x120"]) == 0
    assert "320x120 are squeezed into 160x120" in capsys.readouterr().err


def test_inputs_with_the_same_name_have_separate_results(
    random_model: Path, segmenter: Segmenter, drive: StreetDrive, tmp_path: Path
) -> None:
    front, rear = (
        write(tmp_path / name / "1.png", drive, index) for index, name in enumerate(("front", "rear"))
    )
    assert segment(random_model, tmp_path / "out", front.parent, rear, front) == 0
    for index, name in enumerate(("front", "rear")):
        mask = read_mask(tmp_path / "out" / name / "1_mask.png")
        assert np.array_equal(mask, segmenter(drive.frame(index).image).mask)
    assert len(list((tmp_path / "out").rglob("*_mask.png"))) == 2


def test_a_truncated_video_is_reported(
    random_model: Path, drive: StreetDrive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = video_of(tmp_path / "drive.avi", [drive.frame(index).image for index in range(10)])
    for data in (path.read_bytes()[: path.stat().st_size // 2], b""):
        path.write_bytes(data)
        capsys.readouterr()
        assert segment(random_model, tmp_path / f"out{len(data)}", path) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("canet segment:")]
        assert str(path) in line


def test_an_image_with_the_name_of_a_videos_frame_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "drive.mp4", tmp_path / "drive_000000.png"]
    for file in files:
        file.touch()
    assert main(["segment", *map(str, files), "--out", str(tmp_path / "out")]) == 1
    assert "drive_000000.png has the name of a frame of the video drive" in capsys.readouterr().err
