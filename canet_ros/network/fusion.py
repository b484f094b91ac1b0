# SPDX-License-Identifier: Apache-2.0
"""Modules that fuse the spatial and the context branch.

``fca`` is the paper's feature cross attention (section 2.2). The others are for ablation, which the paper omits: each
half of FCA alone, plain concatenation, and two standard attention blocks over the concatenated features.

Every fusion maps spatial and context features, (B, C, h, w) each, to fused features (B, C_out, h, w).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from canet_ros.names import FUSIONS
from canet_ros.network.layers import conv_bn_relu, separable_conv_bn_relu


def build_fusion(name: str, branch_channels: int, out_channels: int, separable: bool = False) -> nn.Module:
    """Build a fusion by name; with ``separable``, its 3x3 convolution is depthwise separable.

    Raises:
        ValueError: ``name`` is not one of ``names.FUSIONS``.
    """
    if name not in FUSIONS:
        raise ValueError(f"unknown fusion {name!r}: choose one of {', '.join(FUSIONS)}")
    block = separable_conv_bn_relu if separable else conv_bn_relu
    merge = block(2 * branch_channels, out_channels)
    fusion: nn.Module = globals()[FUSIONS[name]](merge, branch_channels, out_channels)
    return fusion


class FeatureCrossAttention(nn.Module):
    """Spatial attention from the spatial branch, channel attention from the context branch (section 2.2).

    f = merge(concat[spatial, context]); result = f * spatial map * channel map + f.
    """

    def __init__(
        self,
        merge: nn.Module,
        branch_channels: int,
        out_channels: int,
        spatial: bool = True,
        channel: bool = True,
    ) -> None:
        super().__init__()
        self.merge = merge
        self.spatial_attention = (
            nn.Sequential(nn.Conv2d(branch_channels, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1))
            if spatial
            else None
        )
        self.channel_attention = nn.Linear(branch_channels, out_channels) if channel else None

    def spatial_map(self, spatial: Tensor) -> Tensor:
        """Attention (B, 1, h, w) in 0..1 from the spatial features; ones without spatial attention."""
        if self.spatial_attention is None:
            return spatial.new_ones(spatial.shape[0], 1, *spatial.shape[2:])
        return torch.sigmoid(self.spatial_attention(spatial))

    def channel_map(self, context: Tensor) -> Tensor:
        """Attention (B, C_out, 1, 1) in 0..1 from the context features; ones without channel attention."""
        if self.channel_attention is None:
            return context.new_ones(context.shape[0], 1, 1, 1)
        average = self.channel_attention(context.mean(dim=(2, 3)))
        maximum = self.channel_attention(context.amax(dim=(2, 3)))
        return torch.sigmoid(average + maximum)[:, :, None, None]

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        fused: Tensor = self.merge(torch.cat((spatial, context), dim=1))
        return fused * self.spatial_map(spatial) * self.channel_map(context) + fused


spatial_attention_alone = partial(FeatureCrossAttention, channel=False)
channel_attention_alone = partial(FeatureCrossAttention, spatial=False)


class Concatenation(nn.Module):
    """No attention: returns f."""

    def __init__(self, merge: nn.Module, branch_channels: int, out_channels: int) -> None:
        super().__init__()
        self.merge = merge

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        fused: Tensor = self.merge(torch.cat((spatial, context), dim=1))
        return fused


class SqueezeExcitation(nn.Module):
    """Channel attention over f (Hu et al., CVPR 2018, reduction 16), with FCA's residual."""

    def __init__(self, merge: nn.Module, branch_channels: int, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.merge = merge
        self.excite = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        fused: Tensor = self.merge(torch.cat((spatial, context), dim=1))
        channel_map: Tensor = self.excite(fused.mean(dim=(2, 3)))[:, :, None, None]
        return fused * channel_map + fused


class ConvolutionalBlockAttention(nn.Module):
    """Channel, then spatial attention over f (Woo et al., CBAM, ECCV 2018), with FCA's residual."""

    def __init__(self, merge: nn.Module, branch_channels: int, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.merge = merge
        self.channel_mlp = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels),
        )
        self.spatial_conv = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        fused: Tensor = self.merge(torch.cat((spatial, context), dim=1))
        channel_logits = self.channel_mlp(fused.mean(dim=(2, 3))) + self.channel_mlp(fused.amax(dim=(2, 3)))
        attended = fused * torch.sigmoid(channel_logits)[:, :, None, None]
        pooled = torch.cat((attended.mean(dim=1, keepdim=True), attended.amax(dim=1, keepdim=True)), dim=1)
        result: Tensor = attended * torch.sigmoid(self.spatial_conv(pooled)) + fused
        return result
