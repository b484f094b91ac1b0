# SPDX-License-Identifier: Apache-2.0
"""``canet segment`` on pictures and videos, and what it says when there are none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from canet_ros.cli import main
from canet_ros.inference import Segmenter
from canet_ros.simulation import StreetDrive


@pytest.fixture(scope="module")
def drive() -> StreetDrive:
    return StreetDrive(seed=5, width=160, height=120)


def segment(random_model: Path, out: Path, *inputs: Path) -> int:
    engine = ["--engine", "torch", "--precision", "fp32", "--device", "cpu"]
    return main(["segment", *map(str, inputs), "--out", str(out), "--model", str(random_model), *engine])


def test_pictures_of_a_folder_and_a_file(random_model: Path, drive: StreetDrive, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(2):
        cv2.imwrite(str(pictures / f"{index}.png"), drive.frame(index).image)
    cv2.imwrite(str(tmp_path / "single.png"), drive.frame(9).image)
    (pictures / "broken.png").write_bytes(b"no picture")
    assert segment(random_model, tmp_path / "out", pictures, tmp_path / "single.png") == 0
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


def test_what_cannot_be_read_is_one_line(
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


def test_usage_errors_are_exit_status_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["segment"])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(["nonsense"])
    assert caught.value.code == 2
