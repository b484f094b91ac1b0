# SPDX-License-Identifier: Apache-2.0
"""A signal at any moment ends the node: exit code 0, within two seconds, without a traceback or shared memory left.

Of a busy machine, the time that the node's threads and this process wait for a processor is not counted.

8 moments, drawn with a fixed seed from the time that the program handles signals (before it imports anything) until it
segments; CANET_TEST_SIGNALS=200 draws more. Python's own start, before any code of ours runs, is not among them.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from ros_graph import Graph, picture, segmentation_node, wait_until
from sensor_msgs.msg import Image
from waiting import WAIT_S

from canet_ros.launching.transport import unused_domain_id

PROGRAM = ("-c", "import sys; from canet_ros.start import segmentation_node; sys.exit(segmentation_node())")
# Importing and loading take about two seconds on an idle machine; then it segments.
LONGEST_S = 4.0
WITHIN_S = 2.0


def sigterm_in(mask: str, task: int) -> bool:
    """Whether SIGTERM is in a task's mask, SigCgt (caught) or SigBlk (blocked), whose lowest bit is signal 1."""
    status = Path(f"/proc/{task}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{mask}:"))
    return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))


def queued_s(pid: int) -> float:
    """How long the threads of a process have waited for a processor."""
    total_s = 0.0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # it has ended
            total_s += int(task.read_text().split()[1]) / 1e9
    return total_s


def shared_memory(pid: int) -> set[str]:
    """Fast DDS' segments that the process maps."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return set(re.findall(r"/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}$", maps, re.MULTILINE))


@pytest.mark.parametrize("autostart", [True, False])
def test_shared_memory_goes_with_the_node(
    autostart: bool, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone in its domain: where others hear it, Fast DDS in one of them clears up after it."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(unused_domain_id()))
    with segmentation_node(random_model, PROGRAM, autostart=autostart) as process:
        segments = wait_until(lambda: shared_memory(process.pid), "a segment of shared memory")
        if autostart:
            process.wait_for_output("loaded in")
        process.signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
        assert [path for path in segments if Path(path).exists()] == []


def test_a_signal_at_random_moments(random_model: Path, graph: Graph) -> None:
    number = int(os.environ.get("CANET_TEST_SIGNALS", "8"))
    moments = random.Random(11)
    graph.listen(Image, "/camera/segmentation/mask")
    camera = graph.camera()
    failures = []
    for attempt in range(number):
        moment_s = moments.uniform(0, LONGEST_S)
        which = moments.choice((signal.SIGINT, signal.SIGTERM))
        with segmentation_node(random_model, PROGRAM) as process:
            wait_until(lambda pid=process.pid: sigterm_in("SigCgt", pid), "the program to handle signals")
            end_s = time.monotonic() + moment_s
            while time.monotonic() < end_s:
                camera.send(picture(160, 120))
                time.sleep(0.02)
            before_s, queueing_s = queued_s(process.pid) + queued_s(os.getpid()), 0.0
            start_s = time.monotonic()
            process.signal(which)
            while (code := process.status()) is None and time.monotonic() < start_s + WAIT_S:
                time.sleep(0.01)
                queueing_s = max(queueing_s, queued_s(process.pid) + queued_s(os.getpid()) - before_s)
            took_s = time.monotonic() - start_s - queueing_s
            if code != 0 or took_s > WITHIN_S or "Traceback" in process.output():
                failures.append(f"{attempt}: {which.name} after {moment_s:.3f} s: {code} in {took_s:.1f} s")
                print(process.output())
    assert failures == []
