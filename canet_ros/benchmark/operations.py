# SPDX-License-Identifier: Apache-2.0
"""How much a network computes, and how much a machine can."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from canet_ros.inference.model_folder import Resolution
from canet_ros.network import CANet

_MATRIX_SIDE = 2048
_REPEATS = 8


def count_gflop(network: CANet, resolution: Resolution) -> float:
    """Billions of operations for one picture of (width, height), a multiply-add counted as two.

    Those of all convolutions and linear layers; batch norms, activations and interpolation are left out.
    """
    multiply_adds = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        nonlocal multiply_adds
        if isinstance(module, nn.ConvTranspose2d):  # every input pixel meets every weight
            multiply_adds += inputs[0][0, 0].numel() * module.weight.numel()
        elif isinstance(module, nn.Conv2d):  # all of them keep the size up to their stride
            height, width = (-(-side // stride) for side, stride in zip(inputs[0].shape[2:], module.stride))
            multiply_adds += height * width * module.weight.numel()
        elif isinstance(module, nn.Linear):
            multiply_adds += inputs[0].shape[0] * module.weight.numel()

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    with torch.inference_mode():
        network(torch.zeros(1, 3, resolution[1], resolution[0]))
    for hook in hooks:
        hook.remove()
    return 2 * multiply_adds / 1e9


def gpu_names() -> list[str]:
    """Of every GPU that PyTorch reaches."""
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


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
