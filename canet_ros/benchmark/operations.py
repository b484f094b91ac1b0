# SPDX-License-Identifier: Apache-2.0
"""Operations of a network, and peak throughput of the machine."""

from __future__ import annotations

import functools
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from canet_ros.model.model_folder import Resolution

if TYPE_CHECKING:
    from torch import nn

_MATRIX_SIDE = 2048
_REPEATS = 8


def count_gflop(network: nn.Module, resolution: Resolution) -> float:
    """Billions of operations per image of (width, height); a multiply-add counts as two.

    Counts convolutions and matrix products, not batch norms, activations and interpolation. Moves ``network`` to the
    meta device, which discards its weights.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network.to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, resolution[1], resolution[0], device="meta"))
    return float(counter.get_total_flops()) / 1e9


@functools.cache
def peak_gflops(precision: str, device: str = "cpu") -> float | None:
    """Peak GFLOP/s of a matrix product (a multiply-add counts as two); None for int8, and without PyTorch."""
    if find_spec("torch") is None:
        return None
    import torch

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
    """Names of all GPUs that PyTorch can use; none without it."""
    if find_spec("torch") is None:
        return []
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
