# SPDX-License-Identifier: Apache-2.0
"""Model folders, ``Segmenter``, visualization, and the self-test of every shipped model."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from canet_ros.cli import main
from canet_ros.engines import Engine
from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import (
    ModelError,
    available_models,
    graph_hash,
    load_network,
    save_model,
)
from canet_ros.opencv import bring_to_size
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.self_test import IMAGE_FILE, MASK_FILE, self_test
from canet_ros.pipeline.visualization import color_lookup_table, colorize, overlay


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
        ("fusion:", "hidden_channels: {2: 48}\nfusion:", r"conv.0.0.weight is \(96, .* expected \(48, "),
        ("name: sky", "name: road", "class names must differ"),
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


LITE = "canet_lite-mobilenet_v2-camvid"
Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def lite() -> Segmenter:
    if LITE not in available_models():
        pytest.skip(f"{LITE} is not shipped here")
    return Segmenter.load(LITE, "cpu", "torch", "fp32")


@pytest.mark.parametrize("model", available_models())
def test_the_mask_of_a_shipped_model_fits_its_weights(model: str) -> None:
    """Where this fails after a training: ``canet export --selftest --model MODEL``."""
    found = self_test(Segmenter.load(model, "cpu", "torch", "fp32"))
    assert found.agreement is not None
    assert found.agreement > 0.999, found


@pytest.mark.parametrize("model", available_models())
def test_the_engine_that_auto_takes_passes(model: str) -> None:
    assert self_test(Segmenter.load(model, "cpu")).passed


def wrong(engine: Engine, before: Callable[[Images], Images], after: Callable[[Images], Images]) -> Engine:
    """A right engine with a fault before or after it."""

    def run(images: Images) -> tuple[Images, Images]:
        mask, confidence = engine.run(np.ascontiguousarray(before(images)))
        return np.ascontiguousarray(after(mask)), confidence

    faulty = copy.copy(engine)
    faulty.run = run  # type: ignore[method-assign]
    return faulty


FAULTS: dict[str, tuple[Callable[[Images], Images], Callable[[Images], Images]]] = {
    "channels swapped": (lambda x: x[..., ::-1], lambda m: m),
    "turned by 180 degrees": (lambda x: x[:, ::-1, ::-1], lambda m: m[:, ::-1, ::-1]),
    "mirrored result": (lambda x: x, lambda m: m[:, :, ::-1]),
    "shifted by a row": (lambda x: x, lambda m: np.roll(m, 12, axis=1)),
    "ids off by one": (lambda x: x, lambda m: (m + 1) % 11),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_engine_does_not_pass(lite: Segmenter, fault: str) -> None:
    engine = wrong(lite.engine, *FAULTS[fault])
    found = self_test(Segmenter(lite.spec, engine, lite.resolution, lite.folder, lite.graph_hash))
    assert not found.passed, found
    assert "are needed" in str(found)


def test_a_model_without_an_image_says_so(segmenter: Segmenter) -> None:
    found = self_test(segmenter)
    assert found.agreement is None
    assert found.passed
    assert "canet export --selftest" in str(found)


def test_the_command_makes_image_and_mask(
    lite: Segmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(lite.folder, tmp_path / "model"))
    (folder / MASK_FILE).unlink()
    (tmp_path / "images").mkdir()
    shutil.move(folder / IMAGE_FILE, tmp_path / "images")
    assert main(["export", "--model", str(folder), "--selftest", str(tmp_path / "images")]) == 0
    assert IMAGE_FILE in capsys.readouterr().out
    found = self_test(Segmenter.load(folder, "cpu", "torch", "fp32"))
    assert found.agreement is not None
    assert found.agreement > 0.999


@pytest.mark.parametrize("damage", ["no mask", "broken", "other size"])
def test_a_broken_test_image_is_a_broken_model(
    segmenter: Segmenter, tmp_path: Path, damage: str, lite: Segmenter
) -> None:
    folder = Path(shutil.copytree(lite.folder, tmp_path / "model"))
    if damage == "no mask":
        (folder / MASK_FILE).unlink()
    elif damage == "broken":
        (folder / IMAGE_FILE).write_bytes((folder / IMAGE_FILE).read_bytes()[:5000])
    else:
        shutil.copy(folder / IMAGE_FILE, folder / MASK_FILE)
    with pytest.raises(ModelError, match="selftest"):
        self_test(Segmenter(lite.spec, lite.engine, lite.resolution, folder, ""))
