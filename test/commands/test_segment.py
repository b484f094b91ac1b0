# SPDX-License-Identifier: Apache-2.0
"""``canet segment`` on images and videos, and its errors."""

from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import pytest

from canet_ros.cli import main
from canet_ros.pipeline.image_files import distinct_names
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import StreetDrive


@pytest.fixture(scope="module")
def drive() -> StreetDrive:
    return StreetDrive(seed=5, width=160, height=120)


def segment(random_model: Path, out: Path, *inputs: Path) -> int:
    engine = ["--engine", "torch", "--precision", "fp32", "--device", "cpu"]
    return main(["segment", *map(str, inputs), "--out", str(out), "--model", str(random_model), *engine])


def test_images_of_a_folder_and_a_file(
    random_model: Path, drive: StreetDrive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        cv2.imwrite(str(images / f"{index}.png"), drive.frame(index).image)
    cv2.imwrite(str(tmp_path / "single.png"), drive.frame(9).image)
    (images / "broken.png").write_bytes(b"not an image")
    (images / "gone.png").symlink_to(tmp_path / "nowhere")
    (images / "folder.png").mkdir()
    assert segment(random_model, tmp_path / "out", images, tmp_path / "single.png") == 1
    assert "2 of 5 could not be read: " in capsys.readouterr().err
    segmenter = Segmenter.load(random_model, "cpu", "torch", "fp32")
    for name, index in (("0", 0), ("1", 1), ("single", 9)):
        mask = cv2.imread(str(tmp_path / "out" / f"{name}_mask.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, segmenter(drive.frame(index).image).mask)
        blended = cv2.imread(str(tmp_path / "out" / f"{name}_overlay.jpg"))
        assert blended is not None
        assert blended.shape == (120, 160, 3)
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_every_frame_of_a_video(random_model: Path, drive: StreetDrive, tmp_path: Path) -> None:
    path = tmp_path / "drive.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    if not video.isOpened():
        pytest.skip("this OpenCV writes no MJPG")
    for index in range(3):
        video.write(drive.frame(index).image)
    video.release()
    assert segment(random_model, tmp_path / "out", path) == 0
    assert len(list((tmp_path / "out").glob("drive_00000?_mask.png"))) == 3


def test_unreadable_inputs_are_one_line(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("no video")
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("absent", "does not exist"),
        ("empty", "no pictures"),
        ("text.txt", "no picture or video"),
    ):
        capsys.readouterr()
        assert segment(random_model, tmp_path / "out", tmp_path / path) == 1
        assert message in capsys.readouterr().err


def write(path: Path, drive: StreetDrive, index: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), drive.frame(index).image)
    return path


def test_inputs_with_the_same_name_have_separate_results(
    random_model: Path, drive: StreetDrive, tmp_path: Path
) -> None:
    front, rear = (
        write(tmp_path / name / "1.png", drive, index) for index, name in enumerate(("front", "rear"))
    )
    assert segment(random_model, tmp_path / "out", front.parent, rear, front) == 0
    segmenter = Segmenter.load(random_model, "cpu", "torch", "fp32")
    for index, name in enumerate(("front", "rear")):
        mask = cv2.imread(str(tmp_path / "out" / name / "1_mask.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, segmenter(drive.frame(index).image).mask)
    assert len(list((tmp_path / "out").rglob("*_mask.png"))) == 2


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/1.png", "a/2.png"], ["1", "2"]),
        (["a/1.png", "b/2.jpg"], ["1", "2"]),
        (["a/1.png", "a/1.jpg", "a/2.png"], ["1.png", "1.jpg", "2.png"]),
        (["a/1.png", "b/1.png"], ["a/1", "b/1"]),
        (["a/1.png", "b/1.png", "b/1.jpg"], ["a/1.png", "b/1.png", "b/1.jpg"]),
        (["x/a/1.png", "y/a/1.png"], ["x/a/1", "y/a/1"]),
        (["a/1.png", "a/1.png.png"], ["1", "1.png"]),
        (["a/drive.mp4", "a/drive_000003.png"], ["drive.mp4", "drive_000003.png"]),
        (["a/drive.mp4", "b/drive.mp4"], ["a/drive", "b/drive"]),
        (["a/drive.mp4", "a/drive_x.png"], ["drive", "drive_x"]),
    ],
)
def test_result_names_are_as_short_as_possible(files: list[str], names: list[str], tmp_path: Path) -> None:
    found = distinct_names([tmp_path / file for file in files])
    assert [name.removeprefix(f"{tmp_path}/") for name in found.values()] == names


def test_results_are_replaced_only_with_force(
    random_model: Path, drive: StreetDrive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = write(tmp_path / "1.png", drive, 0), tmp_path / "out"
    assert segment(random_model, out, image) == 0
    before = (out / "1_mask.png").read_bytes()
    write(image, drive, 40)
    capsys.readouterr()
    assert segment(random_model, out, image) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(out / "1_mask.png") in line
    assert "--force" in line
    assert (out / "1_mask.png").read_bytes() == before
    assert segment(random_model, out, image, Path("--force")) == 0
    assert (out / "1_mask.png").read_bytes() != before


@pytest.mark.parametrize("kind", ["a file", "a full disk"])
def test_results_that_cannot_be_written(
    kind: str, random_model: Path, drive: StreetDrive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = write(tmp_path / "1.png", drive, 0), tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if kind == "a file":
        out.write_text("")
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert segment(random_model, out, image) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"canet segment: cannot write {out}")
    assert not out.is_dir() or not list(out.iterdir())


def test_a_truncated_video_is_reported(
    random_model: Path, drive: StreetDrive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "drive.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    if not video.isOpened():
        pytest.skip("this OpenCV writes no MJPG")
    for index in range(10):
        video.write(drive.frame(index).image)
    video.release()
    for data in (path.read_bytes()[: path.stat().st_size // 2], b""):
        path.write_bytes(data)
        capsys.readouterr()
        assert segment(random_model, tmp_path / f"out{len(data)}", path) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("canet segment:")]
        assert str(path) in line


def test_usage_errors_exit_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["segment"])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(["nonsense"])
    assert caught.value.code == 2
