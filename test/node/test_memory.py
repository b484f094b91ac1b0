# SPDX-License-Identifier: Apache-2.0
"""A node's threads share glibc's arenas: what one frees is another's to take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ARENAS = """
import ctypes, sys, threading
import canet_ros{package}
ended = threading.Barrier(9)
for thread in range(8):
    threading.Thread(target=lambda: (bytearray(2000), ended.wait())).start()
ended.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(open(sys.argv[1]).read().count("<heap nr="))
"""


def arenas(package: str, file: Path, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", ARENAS.format(package=package), str(file)]
    environment.update(variables)
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif("glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="another C library")
def test_eight_threads_share_two_arenas(tmp_path: Path) -> None:
    file = tmp_path / "info.xml"
    assert arenas(".ros", file) <= 2
    assert arenas("", file) > 2
    assert arenas(".ros", file, MALLOC_ARENA_MAX="4") > 2
