# SPDX-License-Identifier: Apache-2.0
"""The network's input in the camera's shape; and what of the camera's image the network sees."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from canet_ros.pipeline.camera_shape import camera_resolution, squeeze, squeeze_warning
from canet_ros.pipeline.camera_transform import CameraTransform, Region, read_camera_transforms
from canet_ros.pipeline.segmentation import Segmentation
from canet_ros.pipeline.segmenter import Segmenter

OWN = (480, 360)


@pytest.mark.parametrize("size", [(1280, 720), (1242, 375), (640, 480), (720, 1280), (999, 1000)])
def test_a_resolution_in_the_cameras_shape(size: tuple[int, int]) -> None:
    width, height = camera_resolution(OWN, size)
    assert width % 16 == height % 16 == 0
    assert width * height == pytest.approx(OWN[0] * OWN[1], rel=0.08)
    assert squeeze((width, height), size) < 1.03


def test_an_image_that_is_squeezed_is_named_with_what_would_fit() -> None:
    assert squeeze_warning(OWN, (640, 480)) == squeeze_warning(OWN, (640, 500)) == ""
    assert "1280x720 are squeezed into 480x360" in squeeze_warning(OWN, (1280, 720))
    assert "resolution 544x304, or 'camera'" in squeeze_warning(OWN, (1280, 720))
    assert squeeze_warning(OWN, (5000, 1)) == squeeze_warning((16, 16), (160, 120)) == ""  # nothing would fit
    assert "resolution 304x544" in squeeze_warning(OWN, (720, 1280))


def random_image(width: int, height: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def test_a_segmenter_takes_the_shape_of_its_first_image(random_model: Path) -> None:
    given = {"device": "cpu", "engine": "torch", "precision": "fp32"}
    segmenter = Segmenter.load(random_model, resolution="camera", **given)
    assert segmenter.engine.name == "none yet"
    wide, tall = random_image(640, 360), random_image(200, 300)
    resolution = camera_resolution((160, 120), (640, 360))
    expected = Segmenter.load(random_model, resolution=resolution, **given)(wide)
    np.testing.assert_array_equal(segmenter(wide).mask, expected.mask)
    assert (segmenter.engine.name, segmenter.resolution) == ("torch", resolution)
    assert segmenter.shape_problem(random_image(1280, 720)) == ""
    assert "200x300 does not have the aspect ratio" in segmenter.shape_problem(tall)
    assert segmenter(tall).mask.shape == (300, 200)  # one image after the other may differ
    with pytest.raises(ValueError, match="must have the same shape"):
        segmenter.infer([wide, tall])
    segmenter.begin()
    assert segmenter.shape_problem(tall) == ""
    assert segmenter.shape_problem(wide) != ""


def numbered(width: int, height: int) -> np.ndarray:
    return (np.arange(width * height) % 200).astype(np.uint8).reshape(height, width)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("region", [None, Region(8, 4, 48, 40)])
def test_what_is_seen_lies_where_it_was(rotation: int, region: Region | None) -> None:
    image, transform = numbered(64, 48), CameraTransform(rotation, region)
    seen = transform.to_network(image)
    part = image if region is None else image[4:44, 8:56]
    np.testing.assert_array_equal(seen, np.rot90(part, -rotation // 90))
    placed = transform.to_camera(Segmentation(seen, seen), (64, 48), (64, 48))
    expected_mask, expected_confidence = np.full_like(image, 255), np.zeros_like(image)
    where = (slice(None),) if region is None else (slice(4, 44), slice(8, 56))
    expected_mask[where], expected_confidence[where] = part, part
    np.testing.assert_array_equal(placed.mask, expected_mask)
    np.testing.assert_array_equal(placed.confidence, expected_confidence)
    # At the network's own density the region has exactly the network's pixels.
    half = CameraTransform(rotation, region).results_size((64, 48), (seen.shape[1] // 2, seen.shape[0] // 2))
    assert half == (32, 24)


def test_ignored_pixels_have_no_class_and_do_not_count() -> None:
    ignored = np.zeros((24, 32), np.uint8)
    ignored[20:] = 1
    transform = CameraTransform(180, None, ignored)
    found = Segmentation(np.full((12, 16), 3, np.uint8), np.full((12, 16), 200, np.uint8))
    placed = transform.to_camera(found, (64, 48), (64, 48))
    assert (placed.mask[:40] == 3).all()
    assert (placed.mask[40:] == 255).all()
    assert (placed.confidence[:40] == 200).all()
    assert not placed.confidence[40:].any()
    assert (found.mask == 3).all(), "the engine's own result was changed"
    counted = transform.counted((64, 48), (16, 12))
    assert counted is not None
    assert not counted[:2].any()  # upside-down, as the network sees it
    assert counted[2:].all()
    assert CameraTransform().counted((64, 48), (16, 12)) is None


def test_views_of_several_cameras(tmp_path: Path) -> None:
    mask = tmp_path / "bonnet.png"
    cv2.imwrite(str(mask), np.eye(8, dtype=np.uint8))
    first, second = read_camera_transforms(2, [str(mask)], ["", "0,0,32,16"], [0, 180])
    assert (first.rotation, first.region) == (0, None)
    assert (second.rotation, second.region) == (180, Region(0, 0, 32, 16))
    assert first.ignored is not None
    assert second.ignored is None
    assert read_camera_transforms(3, [""], [""], [0])[2].is_identity
    with pytest.raises(ValueError, match="rotations has 3 entries for 2 cameras"):
        read_camera_transforms(2, [""], [""], [0, 0, 90])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="is not an image"):
        read_camera_transforms(1, [str(tmp_path / "text.png")], [""], [0])
    cv2.imwrite(str(mask), np.full((8, 8), 255, np.uint8))
    with pytest.raises(ValueError, match="white everywhere"):
        read_camera_transforms(1, [str(mask)], [""], [0])


def test_a_region_that_does_not_lie_in_the_image() -> None:
    with pytest.raises(ValueError, match="is not inside an image of 64x48"):
        CameraTransform(0, Region(40, 0, 32, 16)).to_network(numbered(64, 48))
