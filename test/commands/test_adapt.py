# SPDX-License-Identifier: Apache-2.0
"""``canet adapt``: it writes a complete model only if the model is better on the held-out images of the drive."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from canet_ros.cli import main
from canet_ros.files import write_image
from canet_ros.model.int8_scales import has_scales
from canet_ros.model.model_folder import load_spec
from canet_ros.opencv import read_image
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive of ten images in one folder, as ``canet labels import`` writes it."""
    folder = tmp_path_factory.mktemp("drive")
    write_scenes(folder / "train", 10, first_seed=0, width=160, height=120)
    return folder


@pytest.fixture
def drive(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("canet_ros.training.adaptation.default_epochs", lambda steps, least: 3)
    monkeypatch.setattr("canet_ros.training.adaptation._SYNTHETIC_SCENES", {"train": 2, "val": 2})
    return Path(shutil.copytree(scenes, tmp_path / "drive"))


def test_a_better_model_is_written_with_all_that_the_node_uses(
    drive: Path, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf")
    replay = drive.parent / "old"
    for split, seed in (("train", 50), ("val", 60)):
        write_scenes(replay / split, 2, first_seed=seed, width=160, height=120)
    before = (random_model / "weights.safetensors").read_bytes()
    assert main(["adapt", "drive", "--model", str(random_model), "--replay", "old", "--out", "mine"]) == 0
    shown = capsys.readouterr().out
    assert "8 images to train on, 2 held out" in shown
    spec = load_spec(Path("mine"))
    assert spec.name == "mine"
    assert spec.familiar
    assert spec.temperature != 1
    assert has_scales(Path("mine"))
    assert Segmenter.load("mine", engine="onnxruntime", precision="fp32") is not None
    metrics = json.loads(Path("mine-adaptation/metrics.json").read_text())
    assert metrics["held-out images of the drive"]["images"] == 2
    assert metrics["old domain"]["images"] == 2
    drive_figures = metrics["held-out images of the drive"]
    assert drive_figures["after"]["miou"] > drive_figures["before"]["miou"]
    report = Path("mine-adaptation/report.html").read_text()
    assert all(name in report for name in spec.classes.names)
    assert report.count("data:image/") == 2
    assert (random_model / "weights.safetensors").read_bytes() == before


def test_a_model_that_is_not_better_is_written_only_on_request(
    drive: Path, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The labels are the first model's own masks, which no other model reaches."""
    segmenter = Segmenter.load(random_model)
    for image in (drive / "train" / "images").iterdir():
        write_image(drive / "train" / "labels" / image.name, segmenter(read_image(image)).mask)
    line = ["adapt", "drive", "--model", str(random_model), "--out", "mine"]
    assert main(line) == 1
    assert "mine is not written" in capsys.readouterr().err
    assert not Path("mine").exists()
    assert Path("mine-adaptation/report.html").is_file()
    epochs = Path("mine-adaptation/history.jsonl").read_text()
    assert main([*line, "--anyway"]) == 0
    assert load_spec(Path("mine")).name == "mine"
    assert Path("mine-adaptation/history.jsonl").read_text() == epochs, "the finished run is not repeated"


def test_an_export_of_a_labelling_tool(drive: Path, random_model: Path) -> None:
    for path in (drive / "train" / "labels").iterdir():
        labels = read_image(path, -1)
        write_image(Path("export") / path.name, np.where(labels < 11, labels, 255).astype(np.uint8))
    line = ["adapt", "export", "--format", "masks", "--images", "drive/train/images", "--model"]
    assert main([*line, str(random_model), "--anyway", "--out", "mine"]) == 0
    assert load_spec(Path("mine")).name == "mine"


def test_classes_of_ones_own(drive: Path, random_model: Path) -> None:
    Path("table.yaml").write_text("- {name: road, color: [128, 64, 128]}\n- {name: rest, color: [0, 0, 0]}\n")
    for path in (drive / "train" / "labels").iterdir():
        labels = read_image(path, -1)
        write_image(path, (labels != 3).astype(np.uint8))
    assert (
        main(["adapt", "drive", "--model", str(random_model), "--classes", "table.yaml", "--out", "mine"])
        == 0
    )
    assert load_spec(Path("mine")).classes.names == ("road", "rest")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--minutes", "0.1"], "--minutes 0.1: one epoch takes 60 s"),
        (["--replay", "drive", "--classes", "cityscapes"], "--classes"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_training(
    options: list[str], expected: str, drive: Path, random_model: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("canet_ros.training.adaptation.seconds_per_epoch", lambda *given: 60.0)
    assert main(["adapt", "drive", "--model", str(random_model), "--out", "mine", *options]) == 1
    assert expected in capsys.readouterr().err
    assert not Path("mine").exists()
