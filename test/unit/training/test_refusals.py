# SPDX-License-Identifier: Apache-2.0
"""Invalid values, missing data and missing devices are reported in one line before the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from canet_ros.model.class_table import load_class_table
from canet_ros.simulation import write_scenes
from canet_ros.training.config import TrainingConfig
from canet_ros.training.processes import distributed_context

Refused = Callable[..., str]
NAN, INF = float("nan"), float("inf")
INVALID: dict[str, tuple[Any, ...]] = {
    "epochs": (-1,),
    "batch_size": (0, -1),
    "learning_rate": (-0.1, 0.0, NAN, INF),
    "ema_decay": (2.0, 1.0, -0.5, NAN),
    "class_sharpness": (1.0, NAN),
    "crop": ((8, 64), (97, 64)),
    "resolution": ((9000, 64),),
    "architecture": ("nonsense",),
    "precision": ("nonsense", "int8"),
    "splits": ((),),
}


def test_a_configuration_checks_itself(config: TrainingConfig) -> None:
    for name, values in INVALID.items():
        for value in values:
            with pytest.raises(ValueError, match=f"^{name} ") as caught:
                replace(config, **{name: value})
            assert "\n" not in str(caught.value)
            assert repr(value) in str(caught.value)


@pytest.fixture
def refused(canet_train: Callable[..., tuple[int, list[str], str]], tmp_path: Path) -> Refused:
    """The one line about a training that does not begin."""

    def run(*more: object) -> str:
        status, (*warnings, line), _ = canet_train(*more)
        assert status == 1
        assert line.startswith("canet train: ")
        assert all("the class" in warning for warning in warnings)
        assert not (tmp_path / "run" / "checkpoint.pt").exists()
        return line

    return run


@pytest.mark.parametrize("given", ["--warmup-steps 0", "--batch-size 9"])
def test_the_command_line_names_its_flag(given: str, refused: Refused) -> None:
    assert given.split()[0] in refused(*given.split())


def test_missing_devices(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0"):
        assert f"--device {device}: " in refused("--device", device)
    for device in ("gpu", "cuda:x", "cuda:-1", "mps", ""):
        assert "expected cpu, cuda or cuda:N" in refused("--device", device)


def test_a_class_table_is_named_with_what_is_wrong(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("- {name: road, color: [1, 2")
    assert f"{tmp_path / 'classes.yaml'}: line 1" in refused("--classes", tmp_path / "classes.yaml")


CAR = "- {name: car, color: [1, 2, 3]}"
WRONG_TABLES = {
    "{road: 1, car: 2}": "a list of entries",
    CAR: "2 to 255 classes",
    f"{CAR}\n{CAR}": "must differ",
    f"- {{name: road, color: [1, 2, 300]}}\n{CAR}": "0..255",
    f"- {{name: yes, color: [1, 2, 3]}}\n{CAR}": "name",
    f'- {{name: "a\\0b", color: [1, 2, 3]}}\n{CAR}': "one line",
    f"- {{name: road, name: way, color: [1, 2, 3]}}\n{CAR}": "'name' occurs twice",
    f"- {{id: 7, name: road, color: [1, 2, 3]}}\n{CAR}": "7",
}


def test_wrong_class_tables(tmp_path: Path) -> None:
    table = tmp_path / "classes.yaml"
    for content, words in WRONG_TABLES.items():
        table.write_text(content)
        with pytest.raises(ValueError, match=f"^{table}: ") as caught:
            load_class_table(str(table))
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_data_and_files(scenes: Path, tmp_path: Path, refused: Refused) -> None:
    no_train = tmp_path / "no_train"
    no_train.mkdir()
    (no_train / "val").symlink_to(scenes / "val")
    assert str(no_train / "train") in refused("--data", no_train)
    for name in ("images", "labels"):
        (tmp_path / "empty" / "train" / name).mkdir(parents=True)
    assert "train/images" in refused("--data", tmp_path / "empty")
    for flag in ("--data", "--init", "--teacher", "--extra-data"):
        assert "absent" in refused(flag, "absent"), flag
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused("--out", tmp_path / "file")
    assert "starts with 0016E5" in refused("--without", "0016E5")
    for name in ("", "a/b"):
        assert "100 printable characters without /" in refused("--name", name)


def test_an_unreadable_image_of_a_worker_process_is_named(tmp_path: Path, refused: Refused) -> None:
    write_scenes(tmp_path / "extra", 8, first_seed=50, width=96, height=72)
    for path in (tmp_path / "extra" / "images").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    line = refused("--extra-data", f"{tmp_path / 'extra'}:1", "--workers", 1)
    assert "street_00005" in line
    assert "is truncated" in line


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "device", "expected"),
    [
        ({}, "cuda:3", ("cuda:3", 0, 1)),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, "cuda", ("cuda:1", 5, 8)),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "cpu", ("cpu", 1, 2)),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_every_process_has_a_device(
    environment: dict[str, str], device: str, expected: tuple[str, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    context = distributed_context(device)
    assert (context.device, context.rank, context.world_size) == expected


@pytest.mark.parametrize(
    ("environment", "device", "words"),
    [
        ({}, "cuda:4", "this machine has 4 GPUs"),
        ({"RANK": "4", "LOCAL_RANK": "4", "WORLD_SIZE": "8"}, "cuda", "there is no cuda:4"),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "cuda:0", "give cuda"),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_sharing_a_gpu_is_refused(
    environment: dict[str, str], device: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words):
        distributed_context(device)
