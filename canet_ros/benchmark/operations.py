# SPDX-License-Identifier: Apache-2.0
"""How much a network computes, and how much a machine can."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from canet_ros.inference.model_folder import Resolution

_MATRIX_SIDE = 2048
_REPEATS = 8


def count_gflop(network: nn.Module, resolution: Resolution) -> float:
    """Billions of operations for one picture of (width, height), a multiply-add counted as two.

    Those of all convolutions and matrix products; batch norms, activations and interpolation are left out. Only shapes
    are followed: ``network`` goes to the meta device, and is of no use afterwards.
    """
    network.to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, resolution[1], resolution[0], device="meta"))
    return float(counter.get_total_flops()) / 1e9


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


def gpu_names() -> list[str]:
    """Of every GPU that PyTorch reaches."""
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
