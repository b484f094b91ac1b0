# SPDX-License-Identifier: Apache-2.0
"""A node in a process of its own, and what it uses by Linux's account (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from canet_ros.demo.processes import ChildProcess


@dataclass(frozen=True)
class Usage:
    """What a process holds.

    Attributes:
        memory_mb: resident memory of its own, without files and shared memory.
        descriptors: open files, sockets and pipes.
        threads: its own among them, and those of its libraries.
    """

    memory_mb: float
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """What a process holds now; raises OSError if it has ended."""
    proc = Path("/proc") / str(pid)
    lines = (proc / "status").read_text(encoding="utf-8").splitlines()
    fields = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    if "RssAnon" not in fields:  # a zombie has no memory
        raise ProcessLookupError(f"process {pid} has ended")
    return Usage(
        memory_mb=int(fields["RssAnon"][0]) * 1024 / 1e6,
        descriptors=len(os.listdir(proc / "fd")),
        threads=int(fields["Threads"][0]),
    )


class NodeProcess(ChildProcess):
    """A node, and what it uses."""

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__("node", command)
        self._proc = Path("/proc") / str(self.pid)

    def memory_mb(self) -> float:
        """Resident memory, with the shared memory that it has touched."""
        pages = int((self._proc / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        """Time on all cores, user and system: fields 14 and 15 of proc_pid_stat(5)."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
