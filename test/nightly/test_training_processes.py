# SPDX-License-Identifier: Apache-2.0
"""``canet train`` in two processes over gloo on the CPU. NCCL is not tested."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_until

from canet_ros.simulation import write_scenes

CANET = ["-m", "canet_ros.cli"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "train", 8, first_seed=0, width=96, height=72)
    write_scenes(folder / "val", 1, first_seed=100, width=96, height=72)
    return folder


def train_arguments(scenes: Path, out: Path, epochs: int) -> list[str]:
    arguments = f"train --data {scenes} --name tiny --architecture canet_lite --resolution 96x72 --crop 96x64"
    return f"{arguments} --epochs {epochs} --batch-size 4 --workers 0 --precision fp32 --out {out}".split()


def test_two_processes_train_one_model(scenes: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, *CANET, *train_arguments(scenes, tmp_path, epochs=2)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()].count("model") == 2
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert (tmp_path / "model" / "model.yaml").is_file()


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
