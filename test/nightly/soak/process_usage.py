# SPDX-License-Identifier: Apache-2.0
"""Memory, descriptors and threads of a process, from proc(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


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
