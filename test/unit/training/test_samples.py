# SPDX-License-Identifier: Apache-2.0
"""What a training draws from its folders, what it makes of the images, and what it counts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from canet_ros.cli import main
from canet_ros.model.class_table import load_class_table
from canet_ros.simulation import write_scenes
from canet_ros.training.augmentation import augment, view_shapes
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import IGNORED, find_labelled_images, find_split, of_drives
from canet_ros.training.loss import segmentation_loss
from canet_ros.training.metrics import confusion_matrix, scores
from canet_ros.training.samples import AugmentedImages, EpochSampler
from canet_ros.training.setup import default_epochs, find_data

CLASSES = load_class_table("camvid")


def test_holding_out_a_drive(config: TrainingConfig) -> None:
    images = find_split(Path(config.data), "train")
    assert of_drives(images, [images[0].name]) == images[:1]
    assert find_data(replace(config, without=(images[0].name,)), print).main == images[1:]


def test_without_val_the_end_of_each_recording_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        for name in [f"front_{i:03}" for i in range(10)] + [f"rear_{i:03}" for i in range(5)]:
            cv2.imwrite(str(tmp_path / "train" / folder / f"{name}.png"), np.zeros((4, 4), np.uint8))
    names = {split: [image.name for image in find_split(tmp_path, split)] for split in ("train", "val")}
    assert names["val"] == ["front_008", "front_009", "rear_004"]
    assert len(names["train"]) == 12
    assert not set(names["train"]) & set(names["val"])
    assert "3 of 15 images (front_008, front_009, rear_004)" in capsys.readouterr().err
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="images/ and labels/"):
        find_split(tmp_path, "val")


@pytest.mark.parametrize(
    ("images", "steps_range"), [(20, (600, 640)), (400, (1500, 1500)), (20_000, (60_000, 60_000))]
)
def test_the_schedule_fits_the_number_of_images(images: int, steps_range: tuple[int, int]) -> None:
    steps_per_epoch = images // 8
    steps = default_epochs(steps_per_epoch) * steps_per_epoch
    assert steps_range[0] <= steps <= steps_range[1]


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    write_scenes(tmp_path, 2, first_seed=0, width=96, height=72)
    missing = sorted((tmp_path / "labels").iterdir())[0]
    missing.unlink()
    with pytest.raises(ValueError, match=f"{missing.name} is missing"):
        find_labelled_images(tmp_path)


def test_sampler_draws_every_image_and_some_of_each_further_folder() -> None:
    sampler = EpochSampler(main=10, extra=[(20, 3), (4, 6)], batch_size=4, seed=1)
    first, again = list(sampler), list(sampler)
    sampler.epoch = 1
    second = list(sampler)
    assert first == again
    assert len(first) == len(sampler) == 19
    positions = [sample.position for sample in first]
    assert sorted(positions)[:10] == list(range(10))
    assert sum(10 <= position < 30 for position in positions) == 3
    assert set(range(30, 34)) <= set(positions), "a small folder is drawn whole before any image is repeated"
    assert len({(sample.position, sample.repeat) for sample in first}) == 19
    assert [sample.batch for sample in first] == [count // 4 for count in range(19)]
    assert [sample.position for sample in second] != positions


def test_a_batch_has_one_shape_and_an_epoch_has_all_shapes(scenes: Path) -> None:
    shapes = view_shapes((96, 64), max_aspect=3.0)
    samples = AugmentedImages(find_labelled_images(scenes / "train"), len(CLASSES), shapes, seed=0)
    found: dict[int, set[tuple[int, int]]] = {}
    for sample in EpochSampler(main=8, extra=[(8, 40)], batch_size=4, seed=0):
        image, label = samples[sample._replace(position=sample.position % 8)]
        assert image.shape[1:] == label.shape
        found.setdefault(sample.batch, set()).add((label.shape[1], label.shape[0]))
    assert all(len(shapes_of_batch) == 1 for shapes_of_batch in found.values())
    assert set.union(*found.values()) == set(shapes)


@pytest.mark.parametrize("text", ["", ":0.5", "streets:0", "streets:-1", "streets:nan"])
def test_an_invalid_share_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--data", "d", "--name", "x", "--out", "o", "--extra-data", "streets:1", text])
    assert stopped.value.code == 2
    assert "for example" in capsys.readouterr().err


def test_augmentation_moves_image_and_labels_together() -> None:
    label = np.zeros((90, 120), np.uint8)
    label[20:60, 30:90] = 1
    image = np.where(label[..., None] == 1, 230, 20).astype(np.uint8).repeat(3, axis=2)
    changed = 0
    for seed in range(20):
        view, labels = augment(image, label, (120, 90), np.random.default_rng(seed))
        assert view.shape == (90, 120, 3)
        assert set(np.unique(labels)) <= {0, 1, IGNORED}
        inside = cv2.erode((labels == 1).astype(np.uint8), np.ones((9, 9))) > 0
        outside = cv2.erode((labels == 0).astype(np.uint8), np.ones((9, 9))) > 0
        if inside.any() and outside.any():
            assert view[inside].mean() > view[outside].mean() + 30
        changed += not np.array_equal(labels, label)
    assert changed > 15


def test_some_views_are_dark_and_some_blurred_by_motion() -> None:
    blocks = np.random.default_rng(0).integers(120, 250, (45, 60, 1), np.uint8)
    texture = blocks.repeat(2, axis=0).repeat(2, axis=1).repeat(3, axis=2)
    label = np.zeros((90, 120), np.uint8)
    dark = blurred = 0
    for seed in range(300):
        view, _ = augment(texture, label, (120, 90), np.random.default_rng(seed))
        dark += view.mean() < 90
        inner = view[10:-10, 10:-10].mean(2)
        across, down = (np.abs(np.diff(inner, axis=axis)).mean() for axis in (1, 0))
        blurred += abs(math.log(across / down)) > 0.25
    assert 5 < dark < 60
    assert 5 < blurred < 60


def test_loss_is_low_for_correct_logits_and_ignores_unknown_pixels() -> None:
    labels = torch.randint(0, 3, (2, 8, 8))
    right = 8 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    weights = torch.ones(3)
    assert segmentation_loss(right, labels, weights, 0.5) < 0.02
    assert segmentation_loss(-right, labels, weights, 0.5) > 1
    unknown = labels.clone()
    unknown[:, :4] = IGNORED
    spoiled = right.clone()
    spoiled[:, :, :4] = torch.randn(2, 3, 4, 8) * 20
    expected = float(segmentation_loss(right, unknown, weights, 0.5))
    assert segmentation_loss(spoiled, unknown, weights, 0.5) == pytest.approx(expected, abs=0.02)


def test_scores_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 255], np.uint8)
    prediction = np.array([0, 1, 1, 1, 0], np.uint8)
    found = scores(confusion_matrix(labels, prediction, 3))
    assert found.iou[:2].tolist() == [1 / 2, 2 / 3]
    assert np.isnan(found.iou[2])
    assert found.miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.pixel_accuracy == 3 / 4
