# SPDX-License-Identifier: Apache-2.0
"""The machine that figures were measured on, and the most it can compute."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "openvino", "onnxruntime", "numpy", "opencv-python-headless", "nncf", "rclpy")
_INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimddp",
    "bf16",
)
_MATRIX_SIDE = 2048
_REPEATS = 8


def describe_machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, GPUs, system and versions; nothing that names its owner."""
    cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags = set(cpu_info.split())
    model = next((line.split(":")[1].strip() for line in cpu_info.splitlines() if "model name" in line), "")
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def peak_gflops(precision: str, device: str = "cpu") -> float | None:
    """Best of several matrix products, GFLOP/s, a multiply-add counted as two; None where PyTorch has none (int8)."""
    number_type = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    if number_type is None or (precision == "fp16" and device == "cpu"):
        return None
    a = torch.rand(_MATRIX_SIDE, _MATRIX_SIDE, device=device).to(number_type)
    best_s = float("inf")
    with torch.inference_mode():
        for _ in range(_REPEATS):
            start_s = time.perf_counter()
            (a @ a)[0, 0].item()  # .item() waits for a GPU
            best_s = min(best_s, time.perf_counter() - start_s)
    return 2 * _MATRIX_SIDE**3 / best_s / 1e9


def _version(package: str) -> str:
    for name in (package, f"ros-{package}"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""
