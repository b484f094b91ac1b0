# SPDX-License-Identifier: Apache-2.0
"""Bags on Ray: the same bytes as on one machine, though a worker is killed. Ray is not part of the test extra: it is
large, and starting it takes longer than all that is segmented here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import drives
import pytest
from conftest import EXACT, Segment
from drives import PERIOD_NS, START_NS, TOPICS, Recorded, write_bag

pytestmark = [
    pytest.mark.slow,  # Ray starts a cluster
    pytest.mark.skipif(
        subprocess.call([sys.executable, "-c", "import ray"], stderr=-3) != 0, reason="no Ray here"
    ),
]


def worker_that_writes(partial: Path) -> int | None:
    """Process id of Ray's worker that has the lock of an unfinished bag open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::" in (process / "cmdline").read_bytes() and any(
                os.readlink(link) == str(partial / "lock") for link in (process / "fd").iterdir()
            ):
                return int(process.name)
        except OSError:
            continue
    return None


def test_a_killed_workers_bag_is_done_again(segment: Segment, random_model: Path, tmp_path: Path) -> None:
    frames = drives.pictures(3, 320, 240)
    topic = TOPICS["/front/image_raw"]
    sources = []
    for name in ("a", "b"):
        recorded = [
            Recorded(
                topic.name, topic.msgtype, START_NS + i * PERIOD_NS, drives.image(frames[i % 3], START_NS + i)
            )
            for i in range(60)
        ]
        sources.append(write_bag(tmp_path / name, recorded, topics=[topic]))
    assert segment(*sources, tmp_path / "here") == 0
    out = tmp_path / "ray"
    command = [sys.executable, "-m", "canet_ros.cli", "segment-bag", *sources, out, "--ray"]
    command += ["--model", random_model, *EXACT]
    driver = subprocess.Popen(list(map(str, command)))
    partial, killed = out / "a.partial", False
    deadline = time.monotonic() + 120
    while driver.poll() is None and time.monotonic() < deadline and not killed:
        if (partial / "progress.json").exists() and (worker := worker_that_writes(partial)):
            os.kill(worker, signal.SIGKILL)
            killed = True
        time.sleep(0.005)
    assert driver.wait(120) == 0
    assert killed
    for name in ("a", "b"):
        file = f"{name}/{name}_0.mcap"
        assert (out / file).read_bytes() == (tmp_path / "here" / file).read_bytes()
