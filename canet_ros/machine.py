# SPDX-License-Identifier: Apache-2.0
"""Description of the machine, for benchmark results."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("torch", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx-cu12-libs", "cuda-bindings"),
    *("numpy", "opencv-python-headless", "nncf", "rclpy"),
)
_INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8"),
    *("asimddp", "bf16"),
)


def describe_machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, operating system and Python."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": _system(),
        "python": platform.python_version(),
    }


def describe_benchmark_machine() -> dict[str, Any]:
    """The machine, its vector instructions, package versions and load; no host or user name."""
    flags = cpu_flags()
    return {
        **describe_machine(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "packages": {
            name: version for name in _PACKAGES if (version := installed_version(name, f"ros-{name}"))
        },
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def installed_version(*packages: str) -> str:
    """Version of the first installed distribution of these; empty if none is installed."""
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    return ""


def cpu_flags() -> set[str]:
    """Words of /proc/cpuinfo, the processor's instructions among them; empty where it cannot be read."""
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return set()


def usable_cores() -> int:
    """Number of cores on which this process may run."""
    return len(os.sched_getaffinity(0))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    # /proc/cpuinfo has no "model name" on many ARM kernels.
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = "unknown distribution"
    return f"{name}, {platform.machine()}, Linux {platform.release()}"
