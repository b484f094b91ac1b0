# SPDX-License-Identifier: Apache-2.0
"""A checkpoint resumes only its own run; other runs and damaged files are refused in one line."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from canet_ros.model.class_table import ClassTable, load_class_table
from canet_ros.network import CANet
from canet_ros.training.checkpoint import TrainingState, resume, save_checkpoint
from canet_ros.training.config import TrainingConfig
from canet_ros.training.initialization import initialize
from canet_ros.training.public_checkpoint import import_public_checkpoint
from canet_ros.training.train import train

CLASSES = load_class_table("camvid")


@pytest.mark.parametrize(
    ("changes", "classes", "words"),
    [
        ({}, 9, "'road', 'pavement'"),
        ({"head": "bilinear"}, 11, "head was 'subpixel', is 'bilinear'"),
        ({"epochs": 9, "learning_rate": 0.1}, 11, "epochs was 3, is 9; learning_rate was 0.002, is 0.1"),
    ],
)
def test_another_run_is_refused_naming_what_differs(
    changes: dict[str, Any], classes: int, words: str, config: TrainingConfig, finished_run: Path
) -> None:
    table = ClassTable(CLASSES.names[:classes], CLASSES.colors[:classes])
    with pytest.raises(ValueError, match="written with another configuration") as caught:
        train(replace(config, **changes), table, finished_run)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_images_are_refused(config: TrainingConfig, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(config.data, tmp_path / "data")
    next((tmp_path / "data" / "train" / "images").iterdir()).rename(tmp_path / "data/train/images/x.png")
    next((tmp_path / "data" / "train" / "labels").iterdir()).rename(tmp_path / "data/train/labels/x.png")
    with pytest.raises(ValueError, match="written with another configuration"):
        train(replace(config, data=str(tmp_path / "data")), CLASSES, finished_run)


def state() -> TrainingState:
    network = torch.nn.Linear(300, 300)
    optimizer = torch.optim.AdamW(network.parameters())
    return TrainingState(
        network, torch.nn.Linear(300, 300), optimizer, torch.GradScaler("cpu", enabled=False)
    )


IDENTITY: Mapping[str, Any] = {"crop": (96, 64), "classes": ["a", "b"]}


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "text", "state dict", "list", "no network", "other", "code"]
)
def test_damaged_and_foreign_files_are_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, IDENTITY, state(), 3, None)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif kind in ("empty", "text"):
        path.write_bytes(b"" if kind == "empty" else b"not a checkpoint")
    else:
        content = {
            "state dict": {"weight": torch.zeros(1)},
            "list": [1, 2],
            "no network": {"identity": json.dumps(IDENTITY)},
            "other": {**torch.load(path), "network": torch.nn.Linear(5, 5).state_dict()},
            "code": {"identity": Path},
        }[kind]
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is not a checkpoint") as caught:
        resume(path, IDENTITY, state())
    assert "\n" not in str(caught.value)


class Harmful:
    """Runs code when it is unpickled without precautions."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("packed", [True, False])
def test_a_pickle_that_runs_code_is_refused_by_name(packed: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "checkpoint.pt", tmp_path / "mark"
    harmful = {name: Harmful(mark) for name in ("identity", "features", "state_dict")}
    torch.save(harmful, path, _use_new_zipfile_serialization=packed)
    for read in (
        lambda: resume(path, IDENTITY, state()),
        lambda: initialize(CANet(3, architecture="canet_lite"), str(path), "abc"),
        lambda: import_public_checkpoint(path, "x", CLASSES),
    ):
        with pytest.raises(ValueError, match=r"checkpoint\.pt.* contains more than tensors") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # the pickle is harmful


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, IDENTITY, state(), 3, None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"^cannot write .*checkpoint\.pt: ") as caught:
            save_checkpoint(path, IDENTITY, state(), 4, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert resume(path, IDENTITY, state())[0] == 3
    assert list(tmp_path.iterdir()) == [path]
