# SPDX-License-Identifier: Apache-2.0
"""The machine that figures were measured on, and the most it can compute."""

from __future__ import annotations

import os
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from canet_ros.machine import describe_machine

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


def describe_benchmark_machine() -> dict[str, Any]:
    """The machine, what its processor multiplies, GPUs, versions and load; nothing that names its owner."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    return {
        **describe_machine(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
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
