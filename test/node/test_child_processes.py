# SPDX-License-Identifier: Apache-2.0
"""Child processes end with their parent, even if it is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_until

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_does_not_outlive_a_killed_parent() -> None:
    code = f"""
from canet_ros.demo.processes import ChildProcess
child = ChildProcess("sleeper", {SLEEPER!r})
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_running(pid), "the child to end")


OUTLIVES = """
import subprocess, sys, os
from canet_ros.launching.ending import ending_with_parent, ends_with_this_process
child = (
    "from canet_ros.launching.ending import end_with_parent; end_with_parent();"
    "print('ready', flush=True); import time; time.sleep(60)"
)
environment = {**os.environ, **ends_with_this_process()}
ours = subprocess.Popen([sys.executable, "-c", child], env=environment, stdout=subprocess.PIPE)
ours.stdout.readline()
others = subprocess.Popen(ending_with_parent(["sh", "-c", "echo ready; exec sleep 60"]), stdout=subprocess.PIPE)
others.stdout.readline()
print(ours.pid, others.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_programs_of_a_launch_end_with_it_when_it_is_killed() -> None:
    """Ours by themselves, those of others by setpriv."""
    process = subprocess.Popen(
        [sys.executable, "-c", OUTLIVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    children = [int(pid) for pid in process.stdout.readline().split()]
    assert len(children) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, children)), "the children to end")
