# SPDX-License-Identifier: Apache-2.0
"""A full disk, made by a limit on the size of files: one line says what cannot be written and why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from canet_ros.simulation import write_scenes

TRAIN = "--epochs 1 --architecture canet_lite --resolution 96x72 --crop 96x64 --batch-size 2 --precision fp32"


def on_a_full_disk(given: str, most_kib: int = 0) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'ulimit -f {most_kib}; exec "{sys.executable}" -m canet_ros.cli {given}']
    # Without coverage (which `colcon test` measures where pytest-cov is): its file meets the same limit, and says so.
    measured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment = {**measured, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_doctor_names_its_report(tmp_path: Path) -> None:
    done = on_a_full_disk("doctor --graph-only --json /dev/full", 1)
    (line,) = done.stderr.splitlines()
    assert line == "canet doctor: cannot write /dev/full: No space left on device"


def test_train_says_what_it_cannot_write(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data" / "val", 1, first_seed=100, width=96, height=72)
    write_scenes(tmp_path / "data" / "train", 4, first_seed=0, width=96, height=72)
    done = on_a_full_disk(
        f"train --data {tmp_path}/data --name x --out {tmp_path}/run --workers 0 {TRAIN}", 1
    )
    lines = [line for line in done.stderr.splitlines() if "step/s" not in line and "?step" not in line]
    assert done.returncode == 1
    assert lines[-1].startswith(f"canet train: cannot write {tmp_path}/run/")
    assert len(lines) <= 2
    assert "Traceback" not in done.stderr


def test_record_promises_nothing_that_it_does_not_have(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    done = on_a_full_disk(f"record {tmp_path}/bag --topics /x --duration 1")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"canet record: no space left to write {tmp_path}/bag (File too large)")
    assert "--resume" not in line
