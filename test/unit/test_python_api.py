# SPDX-License-Identifier: Apache-2.0
"""What ``from canet_ros import ...`` gives, and what a segmenter makes of what it is handed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import canet_ros
from canet_ros import ImageError, Segmenter
from canet_ros.simulation import StreetDrive


@pytest.fixture(scope="module")
def segmenter(random_model: Path) -> Segmenter:
    return Segmenter.load(random_model, "cpu", "torch", "fp32", "96x72")


@pytest.fixture
def image() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return StreetDrive(3, 128, 96).frame(0).image


def test_every_public_name_is_there() -> None:
    for name in canet_ros.__all__:
        assert getattr(canet_ros, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'Segmentor'"):
        canet_ros.Segmentor  # noqa: B018


def test_a_path_is_read_as_an_image(segmenter: Segmenter, image: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), image)
    expected = segmenter(image).mask
    for path in (tmp_path / "image.png", str(tmp_path / "image.png")):
        assert np.array_equal(segmenter(path).mask, expected)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        segmenter(tmp_path / "broken.png")
    with pytest.raises(FileNotFoundError):
        segmenter("absent.png")


@pytest.mark.parametrize(
    ("handed", "words"),
    [(None, "got NoneType .cv2.imread returns None"), ([[1]], "got list"), (7, "got int")],
)
@pytest.mark.parametrize("resolution", ["96x72", "camera"])
def test_what_is_no_image_is_named(resolution: str, handed: Any, words: str, random_model: Path) -> None:
    segmenter = Segmenter.load(random_model, "cpu", "torch", "fp32", resolution)
    with pytest.raises(TypeError, match=words):
        segmenter(handed)
    with pytest.raises(TypeError, match=words):
        segmenter.segment_batch([handed])


@pytest.mark.parametrize("resolution", ["96x72", "camera"])
def test_batches_and_generators_give_results_of_the_size_of_their_images(
    resolution: str, random_model: Path, image: Any, tmp_path: Path
) -> None:
    segmenter = Segmenter.load(random_model, "cpu", "torch", "fp32", resolution)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    images = [image, tmp_path / "image.png", cv2.resize(image, (256, 192))]
    expected = [segmenter(each).mask for each in images]
    for results in (segmenter(images), segmenter(tuple(images)), list(segmenter(iter(images)))):
        for result, mask in zip(results, expected, strict=True):
            assert result.mask.shape == mask.shape
            assert (result.mask == mask).mean() > 0.999
    assert [result.mask.shape for result in segmenter.segment_batch([image])] == [image.shape[:2]]
    read: list[int] = []
    frames = segmenter(read.append(index) or image for index in range(9))
    next(frames)
    assert read == [0], "frames of a generator are read when they are wanted"


def test_segmenter_and_results_describe_themselves(segmenter: Segmenter, image: Any) -> None:
    assert repr(segmenter) == f"<Segmenter {segmenter.spec.name}: 96x72, torch fp32 on cpu>"
    result = segmenter(image)
    most = segmenter.spec.classes.names[np.bincount(result.mask.reshape(-1)).argmax()]
    assert repr(result).startswith(f"<Segmentation 128x96: {most} ")


@pytest.mark.parametrize("size", [(96, 72), (128, 96)])
def test_a_result_names_draws_and_saves_itself(
    segmenter: Segmenter, size: tuple[int, int], tmp_path: Path
) -> None:
    image = cv2.resize(StreetDrive(3, 128, 96).frame(0).image, size)
    result = segmenter(image)
    assert result.class_names == segmenter.spec.classes.names
    color = segmenter.spec.classes.colors[result.mask[5, 5]][::-1]
    assert np.allclose(result.overlay(image, 1.0)[5, 5], color)
    assert np.array_equal(result.overlay(image, 0.0), image)
    result.save(tmp_path / "mask.png")
    assert np.array_equal(cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED), result.mask)
    assert result.unlabelled_below(0.5).class_names == result.class_names
    with pytest.raises(ValueError, match="an overlay takes"):
        result.overlay(image[1:])


def test_the_examples_of_the_documentation_run(
    image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("street.jpg", cv2.resize(image, (640, 480)))
    video = cv2.VideoWriter("drive.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (640, 480))
    for _ in range(2):
        video.write(cv2.resize(image, (640, 480)))
    video.release()
    Path("README.md").write_text("not an image")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert names["first"].mask.shape == (480, 640)
    assert Path("mask.png").exists()
    assert Path("overlay.jpg").exists()
    printed = capsys.readouterr().out
    assert printed.count("% road") == 2
    for words in ("no-such-model", "README.md is not an image", "got NoneType"):
        assert words in printed
