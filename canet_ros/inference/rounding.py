# SPDX-License-Identifier: Apache-2.0
"""Weights in bf16 without the shift that rounding gives the mean of every layer's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_PICTURES = 4


@torch.inference_mode()
def round_to_bf16(graph: nn.Module, width: int, height: int) -> None:
    """Fold batch norms into their convolutions, round the weights to bf16 and correct the biases; all in place.

    A rounded weight is off by the same amount at every pixel, so its effect does not average out. It is, in the mean,
    the error times the mean input, which goes into the bias in fp32 (Nagel et al., Data-Free Quantization, ICCV 2019,
    section 4.2). The mean inputs come from blurred noise: any picture does, and a user need not have one.
    """
    _fold_batch_norms(graph)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (_PICTURES, 3, 12, 16), generator=generator).float()
    pictures = nn.functional.interpolate(noise, (height, width), mode="bilinear")
    means = _mean_inputs(graph, pictures.to(torch.uint8).permute(0, 2, 3, 1).contiguous())
    for convolution, mean in means.items():
        error = convolution.weight - convolution.weight.bfloat16().float()
        shift = _response(convolution, error, mean)
        convolution.bias = nn.Parameter(shift if convolution.bias is None else convolution.bias + shift)
        convolution.weight.sub_(error)


Convolution = nn.Conv2d | nn.ConvTranspose2d


def _fold_batch_norms(module: nn.Module) -> None:
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before and isinstance(before[1], Convolution):
            transposed = isinstance(before[1], nn.ConvTranspose2d)
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child, transpose=transposed))
            setattr(module, name, nn.Identity())
        else:
            _fold_batch_norms(child)
        before = (name, child)


def _mean_inputs(graph: nn.Module, pictures: Tensor) -> dict[Convolution, Tensor]:
    """Mean of every input channel of every convolution."""
    means: dict[Convolution, list[Tensor]] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Convolution)
        means.setdefault(module, []).append(inputs[0].mean((0, 2, 3)))

    hooks = [m.register_forward_pre_hook(record) for m in graph.modules() if isinstance(m, Convolution)]
    for picture in pictures:
        graph(picture[None])
    for hook in hooks:
        hook.remove()
    return {module: torch.stack(found).mean(0) for module, found in means.items()}


def _response(convolution: Convolution, weight: Tensor, mean: Tensor) -> Tensor:
    """Mean output of a convolution with this weight, for an input that is its mean everywhere."""
    taps = weight.sum((2, 3))
    if isinstance(convolution, nn.ConvTranspose2d):
        stride_y, stride_x = convolution.stride
        return mean @ taps / (stride_y * stride_x)
    inputs = mean.view(convolution.groups, 1, -1)
    return (taps.view(convolution.groups, -1, taps.shape[1]) * inputs).sum(2).flatten()
