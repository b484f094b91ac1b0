# SPDX-License-Identifier: Apache-2.0
"""A few synthetic scenes, the smallest training on them, and one run of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from canet_ros.cli import main
from canet_ros.model.class_table import load_class_table
from canet_ros.simulation import write_scenes
from canet_ros.training.config import TrainingConfig
from canet_ros.training.train import train


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 images in ``train`` and 2 in ``val``, 96x72."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "train", 8, first_seed=0, width=96, height=72)
    write_scenes(folder / "val", 2, first_seed=100, width=96, height=72)
    return folder


@pytest.fixture(scope="session")
def config(scenes: Path) -> TrainingConfig:
    return TrainingConfig(
        data=str(scenes), name="tiny", architecture="canet_lite", resolution=(96, 72), crop=(96, 64),
        epochs=3, batch_size=4, warmup_steps=2, val_every=1, precision="fp32", ema_decay=0.5, workers=0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished_run(config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of ``config``, to be read only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(config, load_class_table("camvid"), folder)
    return folder


@pytest.fixture
def finished(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the folder."""
    return Path(shutil.copytree(finished_run, tmp_path / "finished"))


@pytest.fixture
def canet_train(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str], str]]:
    """``canet train`` for one epoch into tmp_path/run; returns status, lines of stderr, stdout."""

    def run(*more: object) -> tuple[int, list[str], str]:
        arguments = (
            f"train --data {scenes} --name tiny --architecture canet_lite --resolution 96x72 --crop 96x64"
        )
        arguments += f" --epochs 1 --batch-size 4 --workers 0 --precision fp32 --out {tmp_path / 'run'}"
        capsys.readouterr()
        status = main([*arguments.split(), *map(str, more)])
        captured = capsys.readouterr()
        return status, captured.err.splitlines(), captured.out

    return run
