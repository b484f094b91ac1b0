# SPDX-License-Identifier: Apache-2.0
"""Invalid values, missing data and missing devices are reported in one line before the training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from canet_ros.cli import main
from canet_ros.model.class_table import load_class_table
from canet_ros.simulation import write_scenes
from canet_ros.training.config import TrainingConfig
from canet_ros.training.train import train

CLASSES = load_class_table("camvid")
CONFIG = TrainingConfig(
    data="", name="tiny", architecture="canet_lite", resolution=(96, 72), crop=(96, 64), epochs=1, batch_size=4,
    precision="fp32", workers=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "train", 4, first_seed=0, width=96, height=72)
    write_scenes(folder / "val", 1, first_seed=100, width=96, height=72)
    return folder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("batch_size", "warmup_steps", "loss_stride", "val_every")),
        *((name, -1) for name in ("epochs", "batch_size", "workers", "seed", "extra_share", "max_aspect")),
        *(
            (name, -0.1)
            for name in (
                "learning_rate",
                "backbone_learning_rate",
                "weight_decay",
                "dice_share",
                "teacher_share",
            )
        ),
        *((name, float("nan")) for name in ("learning_rate", "ema_decay", "class_sharpness", "poly_power")),
        *(("learning_rate", value) for value in (0.0, float("inf"))),
        *(("ema_decay", value) for value in (2.0, 1.0, -0.5)),
        *(("hard_share", value) for value in (0.0, 1.5)),
        ("class_sharpness", 1.0),
        ("poly_power", -1.0),
        *(("crop", value) for value in ((8, 64), (96, 0), (97, 64), (96, 65), (96,), "96x64")),
        *(("resolution", value) for value in ((8, 64), (9000, 64), ())),
        *((name, "nonsense") for name in ("architecture", "backbone", "fusion", "head", "precision")),
        ("precision", "int8"),
        ("splits", ()),
        ("epochs", 2.5),
        ("epochs", "3"),
        ("epochs", True),
        ("learning_rate", "fast"),
    ],
)
def test_a_configuration_checks_itself(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        replace(CONFIG, **{name: value})
    assert "\n" not in str(caught.value)
    assert str(value) in str(caught.value) or repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "--warmup-steps 0", "--loss-stride 0", "--val-every 0", "--epochs -1", "--ema-decay 2", "--batch-size 0",
        "--learning-rate -1", "--workers -1", "--crop 97x64",
    ],
)  # fmt: skip
def test_the_command_line_names_its_flag(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", str(tmp_path), "--name", "x", "--out", str(tmp_path / "run")]
    assert main([*arguments, *given.split()]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"canet train: {given.split()[0]} "), error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def refused(capsys: pytest.CaptureFixture[str], scenes: Path, out: Path, *more: str) -> str:
    arguments = f"train --data {scenes} --name tiny --architecture canet_lite --resolution 96x72 --crop 96x64"
    arguments += f" --epochs 1 --batch-size 4 --workers 0 --precision fp32 --out {out}"
    capsys.readouterr()
    assert main([*arguments.split(), *more]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    *warnings, line = lines  # about classes and ids of the labels
    assert line.startswith("canet train: ")
    assert all("the class" in warning for warning in warnings)
    assert not (out / "checkpoint.pt").exists()
    return line


def test_missing_devices(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0"):
        line = refused(capsys, scenes, tmp_path, "--device", device)
        assert f"--device {device}" in line
        assert "no CUDA GPU" in line
    for device in ("gpu", "cuda:x", "cuda:-1", "mps", "meta", ""):
        assert "expected cpu, cuda or cuda:N" in refused(capsys, scenes, tmp_path, "--device", device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    line = refused(capsys, scenes, tmp_path, "--device", "cuda:9")
    assert "cuda:9" in line
    assert "2 GPUs" in line


def test_synchronised_batch_norm_needs_gpus(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--sync-batch-norm" in refused(capsys, scenes, tmp_path, "--sync-batch-norm")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {name: road, color: [1, 2", "line 1: expected ',' or ']'"),
        ("", "a list of entries"),
        ("road", "a list of entries"),
        ("{road: 1, car: 2}", "a list of entries"),
        ("[1, 2]", "a list of entries"),
        ("- {name: road}\n- {name: car}", "a list of entries"),
        ("- {name: road, color: [1, 2, 3]}", "2 to 255 classes"),
        ("- {name: road, color: [1, 2, 3]}\n- {name: road, color: [1, 2, 3]}", "must differ"),
        ("- {name: road, color: [1, 2, 300]}\n- {name: car, color: [1, 2, 3]}", "0..255"),
        ("- {name: road, color: [1, 2, yes]}\n- {name: car, color: [1, 2, 3]}", "0..255"),
        ("- {name: yes, color: [1, 2, 3]}\n- {name: car, color: [1, 2, 3]}", "name"),
        ("- {name: [a], color: [1, 2, 3]}\n- {name: car, color: [1, 2, 3]}", "name"),
        ("- {name: null, color: [1, 2, 3]}\n- {name: car, color: [1, 2, 3]}", "name"),
        ("- {name: '', color: [1, 2, 3]}\n- {name: car, color: [1, 2, 3]}", "name"),
        ("- {name: road, color: blue}\n- {name: car, color: [1, 2, 3]}", "0..255"),
        (
            "- {name: road, name: way, color: [1, 2, 3]}\n- {name: car, color: [1, 2, 3]}",
            "'name' is there twice",
        ),
        ('- {name: "a\\0b", color: [1, 2, 3]}\n- {name: car, color: [1, 2, 3]}', "a text of one line"),
        ("- {id: 7, name: road, color: [1, 2, 3]}\n- {name: car, color: [1, 2, 3]}", "stands at place 0"),
        (" " * 200_000, "expected at most"),
        (b"\xff\xfe\x00", "UTF-8"),
        ("- " * 5000, "nested too deeply"),
        (
            "".join(f"a{i}: &a{i} {[f'*a{i - 1}'] * 9 if i else 0}\n" for i in range(12)).replace("'", ""),
            "values",
        ),
    ],
)
def test_class_tables(
    text: str | bytes, words: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "classes.yaml"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    line = refused(capsys, scenes, tmp_path / "run", "--classes", str(table))
    assert str(table) in line
    assert words in line


def test_missing_data_and_files(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no_train = tmp_path / "no_train"
    no_train.mkdir()
    (no_train / "val").symlink_to(scenes / "val")
    assert str(no_train / "train") in refused(capsys, scenes, tmp_path / "run", "--data", str(no_train))
    assert "absent" in refused(capsys, scenes, tmp_path / "run", "--data", "absent")
    for flag in ("--init", "--teacher", "--extra-data"):
        assert "absent" in refused(capsys, scenes, tmp_path / "run", flag, "absent"), flag
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(capsys, scenes, tmp_path / "file")
    assert "--batch-size" in refused(capsys, scenes, tmp_path / "run", "--batch-size", "5")


@pytest.mark.parametrize(("foreign", "ours"), [("train", "val"), ("val", "train")])
def test_labels_of_another_class_table(
    foreign: str, ours: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ours).symlink_to(scenes / ours)
    for name in ("images", "labels"):
        (tmp_path / foreign / name).mkdir(parents=True)
    for index in range(4):
        cv2.imwrite(str(tmp_path / foreign / "images" / f"{index}.png"), np.zeros((72, 96, 3), np.uint8))
        cv2.imwrite(str(tmp_path / foreign / "labels" / f"{index}.png"), np.full((72, 96), 200, np.uint8))
    line = refused(capsys, tmp_path, tmp_path / "run")
    assert "no pixel" in line
    assert str(tmp_path / foreign) in line
    assert "200" in line


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.zeros((72, 96, 3), np.uint8), "got RGB colours"),
        (np.zeros((72, 96), np.uint16), "expected 8 bits a pixel, got 16"),
        (np.zeros((70, 96), np.uint8), "sizes must agree"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_in_another_format(
    split: str, label: Any, words: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels of val are checked before the first epoch, too."""
    for name in ("train", "val"):
        shutil.copytree(scenes / name, tmp_path / name)
    wrong = sorted((tmp_path / split / "labels").iterdir())[0]
    cv2.imwrite(str(wrong), label)
    line = refused(capsys, tmp_path, tmp_path / "run")
    assert str(wrong) in line
    assert words in line
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_an_unknown_drive_an_empty_folder_and_an_invalid_name(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert "--without 0016E5: no training image has a name with this prefix" in refused(
        capsys, scenes, out, "--without", "0016E5"
    )
    for name in ("images", "labels"):
        (tmp_path / "none" / "train" / name).mkdir(parents=True)
    assert refused(capsys, tmp_path / "none", out).endswith("train/images contains no image")
    for name in ("", "a/b"):
        assert "100 printable characters without /" in refused(capsys, scenes, out, "--name", name)


def test_evaluating_without_known_labels_is_refused(
    random_model: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scenes / "val", tmp_path / "val")
    for label in (tmp_path / "val" / "labels").iterdir():
        cv2.imwrite(str(label), np.full((72, 96), 255, np.uint8))
    assert main(["evaluate", "--model", str(random_model), "--data", str(tmp_path), "--engine", "torch"]) == 1
    assert "has an id of the 11 classes (0 to 10)" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unreadable_image_is_named_by_every_reader(
    workers: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "extra", 8, first_seed=50, width=96, height=72)
    for path in (tmp_path / "extra" / "images").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    more = ["--extra-data", str(tmp_path / "extra"), "--extra-share", "1", "--workers", workers]
    line = refused(capsys, scenes, tmp_path / "run", *more)
    assert "street_00005" in line
    assert "is truncated" in line


def test_a_full_disk_keeps_the_last_checkpoint(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import resource

    config = replace(CONFIG, data=str(scenes))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*File too large") as caught:
            train(config, CLASSES, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "run").rglob("*partial*"))
    assert train(config, CLASSES, tmp_path / "run").miou >= 0
