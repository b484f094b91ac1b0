# SPDX-License-Identifier: Apache-2.0
"""How much a network computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from canet_ros.inference.model_folder import Resolution
from canet_ros.network import CANet


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
