# SPDX-License-Identifier: Apache-2.0
"""Weights and biases in bf16 or fp16 without the shift that rounding gives the mean of every layer's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Convolution = nn.Conv2d | nn.ConvTranspose2d

_PICTURES = 2


@torch.no_grad()
def round_weights(graph: nn.Module, width: int, height: int, dtype: torch.dtype) -> None:
    """Fold batch norms into their convolutions and round weights and biases to a type of 16 bits; all in place.

    They stay float32 tensors, whose values ``dtype`` holds exactly.

    A rounded weight is off by the same amount at every pixel, and so is a rounded bias: unlike the rounding of pixels,
    it does not average out, and in a MobileNetV2 it costs more classes than everything else together. So weights are
    rounded up or down such that the mean output of every channel stays; Nagel et al. (Data-Free Quantization, ICCV
    2019, section 4.2) correct the mean in the bias, but engines round that too. The mean inputs come from blurred
    noise: any picture does, and a user need not have one.
    """
    _fold_batch_norms(graph)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (_PICTURES, 3, 12, 16), generator=generator).float()
    pictures = nn.functional.interpolate(noise, (height, width), mode="bilinear").to(torch.uint8)
    for convolution, mean in _mean_inputs(graph, pictures.permute(0, 2, 3, 1)).items():
        _round_convolution(convolution, mean, dtype)


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


def _round_convolution(convolution: Convolution, mean: Tensor, dtype: torch.dtype) -> None:
    weight = convolution.weight
    if isinstance(convolution, nn.ConvTranspose2d):  # (in, out, y, x); an output sees one tap of stride^2
        weight = weight.transpose(0, 1)
        mean = mean / (convolution.stride[0] * convolution.stride[1])
    rows = weight.flatten(1)  # one per output channel
    inputs = mean.view(convolution.groups, -1).repeat_interleave(rows.shape[0] // convolution.groups, 0)
    inputs = inputs.repeat_interleave(rows.shape[1] // inputs.shape[1], 1)
    missing = torch.zeros(rows.shape[0])
    if convolution.bias is not None:
        missing = convolution.bias - convolution.bias.to(dtype).float()
        convolution.bias.sub_(missing)
    weight.copy_(round_rows(rows, inputs, missing, dtype).view_as(weight))


def round_rows(rows: Tensor, inputs: Tensor, missing: Tensor, dtype: torch.dtype) -> Tensor:
    """Round each row (rows, N) so that its product with ``inputs`` (rows, N) grows by ``missing`` (rows,).

    Starts from the nearest ``dtype`` of every weight and takes the other neighbour where that brings the product
    closer, largest changes first.
    """
    rounded = rows.to(dtype).float()
    away_from_zero = (rows.abs() > rounded.abs()).to(torch.int16) * 2 - 1
    other = (rounded.to(dtype).view(torch.int16) + away_from_zero).view(dtype).float()
    other = torch.where(rounded == 0, rounded, other)
    changes = (other - rounded) * inputs
    missing = missing + ((rows - rounded) * inputs).sum(1)
    order = changes.abs().argsort(1, descending=True)
    ordered = changes.gather(1, order)
    taken = torch.zeros_like(ordered, dtype=torch.bool)
    for i in range(ordered.shape[1]):
        taken[:, i] = (missing - ordered[:, i]).abs() < missing.abs()
        missing = missing - ordered[:, i] * taken[:, i]
    return torch.where(torch.zeros_like(taken).scatter(1, order, taken), other, rounded)
