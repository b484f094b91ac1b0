# SPDX-License-Identifier: Apache-2.0
"""Calibration of overconfident models, by the command and in the graph of every engine."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from canet_ros.cli import main
from canet_ros.model.model_folder import graph_hash, load_network, load_spec, save_spec
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.training.calibration import reliability

CLASSES = 11


def test_reliability_of_an_image() -> None:
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    mask = np.array([[0, 1, 0, 0]], np.uint8)
    confidence = np.array([[255, 255, 51, 9]], np.uint8)
    found = reliability(labels, mask, confidence, CLASSES)
    assert (found.pixels[255], found.correct[255], found.pixels[51], found.correct[51]) == (2, 2, 1, 0)
    assert found.pixels.sum() == 3
    # Two pixels are correct at confidence 1, one is wrong at 0.2.
    assert found.calibration_error == pytest.approx(0.2 / 3)


@pytest.fixture
def model(sharp_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharp_model, tmp_path / "model"))


@pytest.fixture
def data(tmp_path: Path, model: Path) -> Path:
    """Labels sampled from the model's probabilities at a temperature of 2: at 1, the model is overconfident."""
    spec, network = load_network(model)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    generator, random = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / "data" / "val" / folder).mkdir(parents=True)
    for index in range(3):
        small = random.integers(0, 256, (6, 8, 3), np.uint8)
        image = cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC)
        rgb = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            probabilities = (network((rgb - mean) / std)[0] / 2).softmax(0).flatten(1).T
        label = torch.multinomial(probabilities, 1, generator=generator).view(120, 160).to(torch.uint8)
        cv2.imwrite(str(tmp_path / f"data/val/images/{index}.png"), image)
        cv2.imwrite(str(tmp_path / f"data/val/labels/{index}.png"), label.numpy())
    return tmp_path / "data"


def test_evaluate_calibrates_a_model(model: Path, data: Path, tmp_path: Path) -> None:
    exact = ["--engine", "torch", "--device", "cpu", "--precision", "fp32"]
    command = ["evaluate", "--model", str(model), "--data", str(data), *exact]
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    assert main([*command, "--json", str(before)]) == 0
    hash_before = graph_hash(model)
    plots = [tmp_path / "reliability.png", tmp_path / "confusion.png"]
    asked = ["--reliability", str(plots[0]), "--confusion", str(plots[1])]
    assert main([*command, "--calibrate", "--json", str(after), *asked]) == 0
    assert all(cv2.imread(str(plot)) is not None for plot in plots)
    old, new = (json.loads(path.read_text()) for path in (before, after))
    assert old["calibration_error"] > 0.05
    assert new["calibration_error"] < 0.02
    assert new["temperature"] == pytest.approx(2, rel=0.05)
    assert new["miou"] == old["miou"], "the classes must not change"
    spec = load_spec(model)
    assert spec.temperature == new["temperature"] != 1
    assert set(spec.familiar) == {"mean", "tenth", "sure", "upper"}
    assert spec.metrics["val_calibration_error"] == pytest.approx(new["calibration_error"], abs=1e-4)
    # Derived files of engines depend on the temperature, but not on the metrics.
    hash_after = graph_hash(model)
    assert hash_after != hash_before
    save_spec(model, replace(spec, metrics={}, familiar={}))
    assert graph_hash(model) == hash_after


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnxruntime"])
def test_every_engine_divides_by_the_temperature(model: Path, engine: str) -> None:
    pytest.importorskip(engine)
    image = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    given = {"device": "cpu", "engine": engine, "precision": "fp32"}
    sure = Segmenter.load(model, **given)(image)
    save_spec(model, replace(load_spec(model), temperature=3.0))
    less_sure = Segmenter.load(model, **given)(image)
    np.testing.assert_array_equal(sure.mask, less_sure.mask)
    assert less_sure.confidence.mean() < sure.confidence.mean()
    # The most probable of 11 classes has a probability of at least 1/11.
    assert less_sure.confidence.min() >= 255 // CLASSES
