# SPDX-License-Identifier: Apache-2.0
"""Training in several processes: devices, shared batches, and the end of one process.

Runs real processes over gloo on the CPU. The choice of GPUs is tested with a fake of torch.cuda; NCCL and synchronised
batch norm are not tested.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from waiting import wait_until

from canet_ros.simulation import write_scenes
from canet_ros.training.processes import distributed_context

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
CANET = ["-m", "canet_ros.cli"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "train", 8, first_seed=0, width=96, height=72)
    write_scenes(folder / "val", 1, first_seed=100, width=96, height=72)
    return folder


def train_arguments(scenes: Path, out: Path, epochs: int = 1) -> list[str]:
    arguments = f"train --data {scenes} --name tiny --architecture canet_lite --resolution 96x72 --crop 96x64"
    return f"{arguments} --epochs {epochs} --batch-size 4 --workers 0 --precision fp32 --out {out}".split()


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.parametrize(
    ("environment", "device", "expected"),
    [
        ({}, "cuda", ("cuda:0", 0, 1)),
        ({}, "cuda:3", ("cuda:3", 0, 1)),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, "cuda", ("cuda:1", 5, 8)),
        ({"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4"}, "cuda", ("cuda:3", 3, 4)),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "cpu", ("cpu", 1, 2)),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_every_process_has_a_device(
    environment: dict[str, str],
    device: str,
    expected: tuple[str, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    context = distributed_context(device)
    assert (context.device, context.rank, context.world_size) == expected


@pytest.mark.parametrize(
    ("environment", "device", "words"),
    [
        ({}, "cuda:4", "this machine has 4 GPUs"),
        ({"RANK": "4", "LOCAL_RANK": "4", "WORLD_SIZE": "8"}, "cuda", "as many processes as GPUs"),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "cuda:0", "give cuda"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "cuda", "LOCAL_RANK"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "cpu", "RANK"),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_sharing_a_gpu_is_refused(
    environment: dict[str, str], device: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words):
        distributed_context(device)


def test_a_batch_that_does_not_divide_is_refused(scenes: Path, tmp_path: Path) -> None:
    command = [*LAUNCHER, *CANET, *train_arguments(scenes, tmp_path), "--batch-size", "3"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "canet train: --batch-size 3: must be a multiple of the number of processes, 2" in done.stderr
    assert not (tmp_path / "checkpoint.pt").exists()


def one_rank(rank: int, port: int, arguments: list[str]) -> subprocess.Popen[str]:
    """Start one of two processes without a launcher, which would end the other one."""
    environment = {**ENVIRONMENT, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, *CANET, *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("dies", [0, 1])
def test_all_processes_end_when_one_dies(dies: int, scenes: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = train_arguments(scenes, tmp_path, epochs=10_000)
    ranks = [one_rank(rank, port, arguments) for rank in (0, 1)]
    try:
        wait_until((tmp_path / "checkpoint.pt").is_file, "the first epoch", 120)
        ranks[dies].send_signal(signal.SIGKILL)
        _, errors = ranks[1 - dies].communicate(timeout=60)
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    assert ranks[1 - dies].returncode == 1
    assert f"canet train: process {1 - dies} of 2 cannot continue: another process ended" in errors
    assert "Traceback" not in errors
