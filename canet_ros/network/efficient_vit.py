# SPDX-License-Identifier: Apache-2.0
"""EfficientViT-B0 as backbone (Cai et al., EfficientViT, ICCV 2023, section 3, table 1).

The state-dict keys are those of the authors' files, whose backbones load as they are.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from canet_ros.network.backbones import Backbone


class EfficientViT(Backbone):
    """Inverted residuals up to stride 8; from there, each stage ends in blocks with linear attention."""

    channels_16 = 64
    channels_32 = 128
    _widths = (8, 16, 32, 64, 128)  # after the stem and after each stage
    _attention_from_stage = 2

    def __init__(self) -> None:
        super().__init__()
        stem, *widths = self._widths
        self.input_stem = _op_list(
            _conv(3, stem, 3, stride=2, activation=True), Residual(_depthwise_separable(stem))
        )
        stages = []
        for stage, (in_channels, channels) in enumerate(zip(self._widths, widths)):
            attends = stage >= self._attention_from_stage
            halving = _named(main=_inverted_residual(in_channels, channels, stride=2, one_norm=attends))
            if attends:
                stages.append(_op_list(halving, _attention_block(channels), _attention_block(channels)))
            else:
                stages.append(_op_list(halving, Residual(_inverted_residual(channels, channels))))
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.input_stem(image)
        for stage in self.stages[:-1]:
            x = stage(x)
        return x, self.stages[-1](x)

    def stem(self) -> list[nn.Module]:
        return [self.input_stem, self.stages[0]]


class Residual(nn.Module):
    """x + main(x)."""

    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.main(x)
        return out


class LinearAttention(nn.Module):
    """Multi-scale attention with ReLU features, linear in the number of pixels (section 3.1, figure 2).

    Queries, keys and values come from each pixel and from its 5x5 neighbourhood.
    """

    def __init__(self, channels: int, head_channels: int = 16) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.qkv = _named(conv=nn.Conv2d(channels, 3 * channels, 1, bias=False))
        neighbourhood = nn.Sequential(
            nn.Conv2d(3 * channels, 3 * channels, 5, padding=2, groups=3 * channels, bias=False),
            nn.Conv2d(3 * channels, 3 * channels, 1, groups=3 * channels // head_channels, bias=False),
        )
        self.aggreg = nn.ModuleList([neighbourhood])
        self.proj = _conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        pixels = self.qkv(x)
        both_scales = torch.cat((pixels, self.aggreg[0](pixels)), dim=1)
        batch, _, height, width = x.shape
        heads = both_scales.reshape(batch, -1, 3 * self.head_channels, height * width)
        attended = linear_attention(*heads.chunk(3, dim=2))
        out: Tensor = self.proj(attended.reshape(batch, -1, height, width))
        return out


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention relu(query) . relu(key), normalised over all pixels; all are (B, heads, channels, pixels).

    The authors divide one sum over all pixels by another; both grow with the image, up to what half precision holds.
    Here each channel's keys are normalised over the pixels and each pixel's weights over the channels, which gives the
    same quotient from numbers as small as the values.
    """
    query, key = query.relu(), key.relu()
    epsilon = 1e-6  # half precision holds it
    # Not F.normalize: OpenVINO 2026.4 computes its ReduceL1 wrongly on CPUs with AVX2.
    keys = key / (key.sum(dim=3, keepdim=True) + epsilon)
    weights = query * key.mean(dim=3, keepdim=True)
    weights = weights / (weights.sum(dim=2, keepdim=True) + epsilon)
    return value @ keys.transpose(2, 3) @ weights


def _attention_block(channels: int) -> nn.Module:
    return _named(
        context_module=Residual(LinearAttention(channels)),
        local_module=Residual(_inverted_residual(channels, channels, one_norm=True)),
    )


def _inverted_residual(in_channels: int, channels: int, stride: int = 1, one_norm: bool = False) -> nn.Module:
    """Expand 1x1 by 4, depthwise 3x3, project 1x1; with ``one_norm``, only the projection has a batch norm."""
    hidden = 4 * in_channels
    return _named(
        inverted_conv=_conv(in_channels, hidden, 1, norm=not one_norm, activation=True),
        depth_conv=_conv(hidden, hidden, 3, stride, hidden, norm=not one_norm, activation=True),
        point_conv=_conv(hidden, channels, 1),
    )


def _depthwise_separable(channels: int) -> nn.Module:
    return _named(
        depth_conv=_conv(channels, channels, 3, groups=channels, activation=True),
        point_conv=_conv(channels, channels, 1),
    )


def _conv(
    in_channels: int,
    channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    norm: bool = True,
    activation: bool = False,
) -> nn.Module:
    padding = kernel_size // 2
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(in_channels, channels, kernel_size, stride, padding, groups=groups, bias=not norm)
    }
    if norm:
        layers["norm"] = nn.BatchNorm2d(channels)
    if activation:
        layers["act"] = nn.Hardswish()
    return _named(**layers)


def _op_list(*layers: nn.Module) -> nn.Module:
    return _named(op_list=nn.Sequential(*layers))


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))
