# SPDX-License-Identifier: Apache-2.0
"""Model folders, ``Segmenter`` and visualization, on the torch engine with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import (
    ModelError,
    graph_hash,
    load_network,
    save_model,
)
from canet_ros.opencv import bring_to_size
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.visualization import color_lookup_table, colorize, overlay

RNG = np.random.default_rng(3)
IMAGE = cv2.GaussianBlur(RNG.integers(0, 256, (97, 131, 3), dtype=np.uint8), (0, 0), 5)


@pytest.fixture
def copied_model(random_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_model, tmp_path / "copy"))


def test_model_survives_saving_and_loading(random_model: Path, tmp_path: Path) -> None:
    spec, network = load_network(random_model)
    save_model(tmp_path / "again", spec, network)
    spec_again, network_again = load_network(tmp_path / "again")
    assert spec_again == spec
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, network_again.state_dict()[name]), name
    assert graph_hash(tmp_path / "again") == graph_hash(random_model)


def test_mask_is_the_networks_argmax(segmenter: Segmenter, random_model: Path) -> None:
    image = cv2.resize(IMAGE, segmenter.resolution)
    spec, network = load_network(random_model)
    rgb = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = torch.tensor(spec.mean).view(1, 3, 1, 1), torch.tensor(spec.std).view(1, 3, 1, 1)
    with torch.inference_mode():
        probability = network((rgb - mean) / std).softmax(1)[0]
    result = segmenter(image)
    best, expected = probability.max(0)
    clear = (probability.topk(2, dim=0).values.diff(dim=0).abs()[0] > 1e-4).numpy()
    assert clear.mean() > 0.95
    assert (result.mask == expected.numpy())[clear].all()
    assert len(np.unique(result.mask)) > 1
    np.testing.assert_allclose(result.confidence, best.numpy() * 255, atol=0.6)


@pytest.mark.parametrize("size", [(480, 360), (560, 304), (240, 180), (213, 120)])
def test_shrinking_averages_what_it_leaves_out(size: tuple[int, int]) -> None:
    image = np.tile(np.array([[0, 255], [255, 0]], np.uint8)[..., None], (360, 640, 3))
    place = np.empty((size[1], size[0], 3), np.uint8)
    bring_to_size(image, place)
    # A chessboard of single pixels is grey from afar; picking pixels, as bilinear does, would show its squares.
    assert abs(place.astype(int) - 127.5).max() <= 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("resolution: 160x120", "resolution: large", "expected WIDTHxHEIGHT"),
        ("backbone: mobilenet_v2", "", "the entry 'backbone' is missing"),
        ("architecture: canet_lite", "architecture: unet", "unknown architecture 'unet'"),
        ("fusion:", "hidden_channels: {2: 97}\nfusion:", "97 of block 2 .* takes 17 to 96"),
        ("fusion:", "hidden_channels: {90: 16}\nfusion:", "no block 90 that can"),
        ("fusion:", "hidden_channels: {2: 48}\nfusion:", r"conv.0.0.weight is \(96, .* expected \(48, "),
        ("name: sky", "name: road", "class names must differ"),
        ("name: random", "name: [", "model.yaml"),
    ],
)
def test_broken_spec(copied_model: Path, old: str, new: str, message: str) -> None:
    path = copied_model / "model.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ModelError, match=message):
        load_network(copied_model)


def test_colours_and_overlay() -> None:
    classes = load_class_table("camvid")
    table = color_lookup_table(classes, "bgr")
    mask = np.array([[0, 3], [10, 200]], np.uint8)
    colors = colorize(mask, table)
    assert colors[0, 1].tolist() == [128, 64, 128]
    assert colors[1, 0].tolist() == [192, 128, 0]
    assert colors[1, 1].tolist() == [0, 0, 0]
    image = np.full((2, 2, 3), 100, np.uint8)
    assert (overlay(image, mask, table, 0.0) == image).all()
    assert (overlay(image, mask, table, 1.0) == colors).all()
    assert overlay(image, mask, table, 0.5)[0, 1].tolist() == [114, 82, 114]
