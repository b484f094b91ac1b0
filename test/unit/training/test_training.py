# SPDX-License-Identifier: Apache-2.0
"""Training on a few synthetic scenes: it learns, resumes exactly, and stores what it trained."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from canet_ros.cli import main
from canet_ros.commands.train import add_training_options, training_config
from canet_ros.model.class_table import ClassTable, load_class_table
from canet_ros.model.model_folder import (
    WEIGHTS_FILE,
    ModelSpec,
    load_network,
    load_spec,
    save_model,
)
from canet_ros.simulation import write_scenes
from canet_ros.training.ablation import planned_runs, train_run
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import find_labelled_images
from canet_ros.training.loss import distillation_loss
from canet_ros.training.teacher import load_teacher
from canet_ros.training.train import network_input, save_checkpoint, train

CLASSES = load_class_table("camvid")
Train = Callable[..., tuple[int, list[str], str]]


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "history.jsonl").read_text().splitlines()]


def test_a_run_learns_and_writes_its_curves(finished_run: Path) -> None:
    pytest.importorskip("matplotlib")
    assert losses(finished_run)[-1] < losses(finished_run)[0]
    assert cv2.imread(str(finished_run / "curve.png")) is not None


def test_an_interrupted_run_resumes_exactly(
    config: TrainingConfig, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any) -> None:
        save_checkpoint(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr("canet_ros.training.train.save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, CLASSES, tmp_path)
    monkeypatch.undo()
    assert len(losses(tmp_path)) == 1
    with open(tmp_path / "history.jsonl", "a") as history:
        history.write(json.dumps({"epoch": 2, "loss": 9.9}) + "\n")  # an epoch without a checkpoint
    torch.manual_seed(99)
    train(config, CLASSES, tmp_path)
    assert losses(tmp_path) == losses(finished_run)
    ours, theirs = (run / "model" / WEIGHTS_FILE for run in (tmp_path, finished_run))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_student_learns_from_the_teacher(
    config: TrainingConfig, finished_run: Path, tmp_path: Path
) -> None:
    taught = replace(config, teacher=str(finished_run / "model"), epochs=1)
    train(taught, CLASSES, tmp_path / "student")
    assert losses(tmp_path / "student")[0] > losses(finished_run)[0], "the teacher's part is added"
    assert load_spec(tmp_path / "student" / "model").training["teacher"] == "model"
    logits = torch.randn(2, 3, 4, 4)
    assert float(distillation_loss(logits, logits)) == pytest.approx(0, abs=1e-6)
    assert float(distillation_loss(logits, -logits)) > 0.1
    with pytest.raises(ValueError, match="classes of the teacher"):
        train(taught, load_class_table("cityscapes"), tmp_path / "other")


def test_pixels_are_normalised_by_each_model(config: TrainingConfig, tmp_path: Path) -> None:
    """Teacher, initial model and ablation use their own mean and standard deviation."""
    torch.manual_seed(0)
    spec = ModelSpec("bytes", CLASSES, "canet_lite", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    save_model(tmp_path / "bytes", spec, spec.build_network().half().float().eval())
    crops = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    taught = replace(config, teacher=str(tmp_path / "bytes"), init=str(tmp_path / "bytes"), epochs=1)
    pixels = (crops / 255 - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    with torch.inference_mode():
        expected = load_network(tmp_path / "bytes")[1](pixels, 2)
    torch.testing.assert_close(load_teacher(taught, CLASSES, "cpu")(crops), expected, atol=1e-4, rtol=1e-4)
    image = crops[0].flip(0).permute(1, 2, 0).contiguous().numpy()
    seen = network_input(replace(spec, resolution=(96, 64)), image)
    torch.testing.assert_close(seen, pixels[:1], atol=1e-5, rtol=0)
    train(taught, CLASSES, tmp_path / "run")
    assert load_spec(tmp_path / "run" / "model").mean == spec.mean


def test_the_ablation_compares_fusions(scenes: Path, tmp_path: Path) -> None:
    drive = find_labelled_images(scenes / "train")[0].name
    arguments = f"ablate --data {scenes} --architecture canet_lite --resolution 96x72 --crop 96x64 --epochs 1"
    arguments += f" --batch-size 4 --workers 0 --without {drive} --fusions fca concat --seeds 0 1"
    arguments += f" --out {tmp_path}"
    assert main(arguments.split()) == 0
    results = json.loads((tmp_path / "ablation.json").read_text())
    assert [(run["fusion"], run["seed"]) for run in results["runs"]] == [
        ("fca", 0), ("concat", 0), ("fca", 1), ("concat", 1)
    ]  # fmt: skip
    fca, concat = results["summary"]
    mious = [run["held_out"]["miou"] for run in results["runs"] if run["fusion"] == "fca"]
    assert fca["held_out"]["miou_mean"] == pytest.approx(np.mean(mious))
    assert fca["held_out"]["miou_std"] == pytest.approx(np.std(mious, ddof=1))
    gains = [results["runs"][at]["val"]["miou"] - results["runs"][at - 1]["val"]["miou"] for at in (1, 3)]
    assert concat["val"]["gain_mean"] == pytest.approx(np.mean(gains))
    assert fca["val"]["gain_mean"] == 0
    assert len((tmp_path / "ablation.md").read_text().splitlines()) == 4
    checkpoint = tmp_path / "fca-seed0" / "checkpoint.pt"
    trained_at = checkpoint.stat().st_mtime_ns
    (run,) = planned_runs(tmp_path, ["fca"], [0])
    train_run(TrainingConfig(str(scenes), "", epochs=1), CLASSES, run, "cpu")
    assert checkpoint.stat().st_mtime_ns == trained_at, "what is trained is not trained again"


def test_train_and_evaluate_from_the_command_line(scenes: Path, tmp_path: Path, canet_train: Train) -> None:
    write_scenes(tmp_path / "towns", 3, first_seed=50, width=80, height=96)
    extra = ("--extra-data", f"{tmp_path / 'towns'}:1", "--extra-data", scenes / "val")
    assert canet_train(*extra)[0] == 0
    model = tmp_path / "run" / "model"
    spec = load_spec(model)
    assert (spec.name, spec.resolution) == ("tiny", (96, 72))
    assert (spec.training["extra_data"], spec.training["max_aspect"]) == (["towns:1", "val:0.3"], 3.0)
    assert str(scenes.parent) not in (model / "model.yaml").read_text()
    figures_file, sheet = tmp_path / "f.json", tmp_path / "worst.png"
    arguments = f"evaluate --model {model} --data {scenes} --split val --engine torch --precision fp32"
    arguments += f" --json {figures_file} --worst {sheet}"
    assert main(arguments.split()) == 0
    figures = json.loads(figures_file.read_text())
    assert 0 < figures["miou"] < 1
    assert 0 < figures["pixel_accuracy"] < 1
    assert set(figures["iou"]) == set(CLASSES.names)
    assert spec.metrics["val_miou"] == pytest.approx(figures["miou"], abs=0.02)
    assert cv2.imread(str(sheet)) is not None
    assert np.sum(figures["confusion"]) > 0.9 * 2 * 96 * 72


def test_a_start_from_a_model_takes_its_architecture_and_classes(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ClassTable(tuple(f"class {i}" for i in range(9)), ((1, 2, 3),) * 9)
    spec = ModelSpec("start", table, "canet_lite", fusion="se", head="bilinear")
    save_model(tmp_path / "start", spec, spec.build_network())
    arguments = f"train --data {scenes} --name x --init {tmp_path / 'start'} --epochs 1 --batch-size 4"
    arguments += " --workers 0 --resolution 96x72 --crop 96x64 --out"
    assert main([*arguments.split(), str(tmp_path / "run")]) == 0
    trained = load_spec(tmp_path / "run" / "model")
    assert trained.classes == table
    assert (trained.architecture, trained.fusion, trained.head) == ("canet_lite", "se", "bilinear")
    capsys.readouterr()
    assert main([*arguments.split(), str(tmp_path / "other"), "--architecture", "canet"]) == 1
    assert "its architecture is canet_lite, not canet" in capsys.readouterr().err


def test_a_shipped_model_is_a_start_by_its_name() -> None:
    parser = argparse.ArgumentParser()
    add_training_options(parser)
    given = "--data x --name y --init canet_lite-mobilenet_v2-camvid --head bilinear"
    config, classes = training_config(parser.parse_args(given.split()))
    assert (config.architecture, config.head) == ("canet_lite", "bilinear")
    assert (Path(config.init) / "model.yaml").is_file()
    assert classes == CLASSES
