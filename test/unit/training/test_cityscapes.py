# SPDX-License-Identifier: Apache-2.0
"""``canet train`` and ``canet evaluate`` on a folder in Cityscapes' own layout, with options from a YAML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from canet_ros.cli import main
from canet_ros.model.class_table import load_class_table
from canet_ros.model.model_folder import load_spec
from canet_ros.training.dataset import IGNORED, find_split

RECIPE = Path(__file__).parents[3] / "config" / "training" / "cityscapes.yaml"
# Label ids as cityscapesScripts has them: road, sidewalk, car, bicycle; unlabelled, ego vehicle, caravan, bridge.
TRAIN_ID = {7: 0, 8: 1, 26: 13, 33: 18, 0: IGNORED, 1: IGNORED, 29: IGNORED, 15: IGNORED}
Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Two cities in train and one in val, four 96x48 images each; a column for each of the label ids."""
    rng = np.random.default_rng(0)
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "lindau")):
        for number in range(4):
            name = f"{city}_{number:06d}_000019"
            labels = np.repeat(np.array(list(TRAIN_ID), np.uint8), 12)[None].repeat(48, axis=0)
            files = {
                f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png": rng.integers(
                    0, 255, (48, 96, 3), np.uint8
                ),
                f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png": labels,
                f"gtFine/{split}/{city}/{name}_gtFine_color.png": np.zeros((48, 96, 4), np.uint8),
            }
            for file, pixels in files.items():
                (tmp_path / "cs" / file).parent.mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(tmp_path / "cs" / file), pixels)
    return tmp_path / "cs"


@pytest.fixture
def train_on(cityscapes: Path, canet_train: Run) -> Run:
    """``canet train`` with the recipe, made small; returns status, lines of stderr, stdout."""
    small = ("--config", RECIPE, "--data", cityscapes, "--resolution", "96x48", "--crop", "96x48")
    return lambda *more: canet_train(*small, *more)


def test_label_ids_become_train_ids(cityscapes: Path) -> None:
    images = find_split(cityscapes, "train")
    assert [image.name[:13] for image in images[3:5]] == ["aachen_000003", "bochum_000000"]
    assert images[0].read(19)[1][0, ::12].tolist() == list(TRAIN_ID.values())


def test_the_recipe_trains_and_the_model_is_evaluated(
    cityscapes: Path, train_on: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, _ = train_on("--learning-rate", 0.001)
    assert status == 0
    spec = load_spec(tmp_path / "run" / "model")
    assert spec.classes == load_class_table("cityscapes")
    assert (spec.architecture, spec.head, spec.resolution) == ("canet_lite", "bilinear", (96, 48))
    assert (spec.training["learning_rate"], spec.training["max_aspect"]) == (0.001, 0)
    evaluate = (
        f"evaluate --model {tmp_path / 'run' / 'model'} --data {cityscapes} --engine torch --device cpu"
    )
    assert main(evaluate.split()) == 0
    figures = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert figures["bus"] == "does not occur"
    assert 0 <= float(figures["bicycle"]) <= 1


def test_what_does_not_fit_is_one_line(cityscapes: Path, train_on: Run) -> None:
    status, (*_, line), _ = train_on("--classes", "camvid")
    assert status == 1
    assert "give --classes cityscapes" in line
    label = next((cityscapes / "gtFine/val").rglob("*labelIds.png"))
    label.unlink()
    status, (*_, line), _ = train_on()
    assert status == 1
    assert f"{label} is missing" in line


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("batch_sizes: 8", "unrecognized arguments: --batch-sizes 8"),
        ("epochs: many", "argument --epochs: invalid int value: 'many'"),
        ("- 8", "expected options such as batch_size: 8"),
        ("ema_decay: 2", "--ema-decay 2"),
    ],
)
def test_a_wrong_file_of_options_is_one_line(text: str, wrong: str, canet_train: Run, tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    status, lines, _ = canet_train("--config", file)
    assert (status, len(lines)) == (1, 1)
    assert wrong in lines[0]


def test_options_of_a_file_and_of_the_command_line(canet_train: Run, tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("freeze_stem: true\nepochs: 7\nseed: 5\nsplits: [train, val]\n")
    assert canet_train("--config", file, "--no-freeze-stem")[0] == 0
    training = load_spec(tmp_path / "run" / "model").training
    assert not training["freeze_stem"]
    assert (training["epochs"], training["seed"], training["splits"]) == (1, 5, ["train", "val"])
