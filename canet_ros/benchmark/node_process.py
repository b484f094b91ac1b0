# SPDX-License-Identifier: Apache-2.0
"""A node in a child process, and its resource usage from proc(5)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from canet_ros.demo.processes import ChildProcess


@dataclass(frozen=True)
class Usage:
    """Resources held by a process.

    Attributes:
        memory_mb: anonymous resident memory, without files and shared memory.
        descriptors: open files, sockets and pipes.
        threads: all threads, including those of libraries.
    """

    memory_mb: float
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """Current resources of a process; raises OSError if it has ended."""
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
    """A node in a child process."""

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__("node", command)
        self._proc = Path("/proc") / str(self.pid)

    def memory_mb(self) -> float:
        """Resident memory, including shared memory."""
        pages = int((self._proc / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        """User and system CPU time: fields 14 and 15 of proc_pid_stat(5)."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
