# SPDX-License-Identifier: Apache-2.0
"""Convolution blocks of both branches: the paper's plain form and CANet-Lite's separable form."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution with "same" padding (sizes divided by the stride, rounded up), batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def separable_conv_bn_relu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3 convolution and batch norm, then 1x1 convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        *conv_bn_relu(in_channels, out_channels, kernel_size=1),
    )


class TransposedUpsample(nn.Module):
    """Deconvolution 3x3 of stride 2, batch norm and ReLU (paper, section 2.1, context branch)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, in, h, w) to ``(B, out, *size)``, where each of ``size`` is 2n - 1 or 2n of h and w."""
        if torch.onnx.is_in_onnx_export():
            # A graph for any size: what ``output_padding`` decides here is cut off there.
            twice = (2 * x.shape[2], 2 * x.shape[3])
            return F.relu(self.bn(self.deconv(x, output_size=twice)[:, :, : size[0], : size[1]]))
        return F.relu(self.bn(self.deconv(x, output_size=size)), inplace=True)


class SeparableUpsample(nn.Module):
    """1x1 convolution, bilinear upsampling, depthwise 3x3: a tenth of the operations of TransposedUpsample."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = conv_bn_relu(in_channels, out_channels, kernel_size=1)
        self.smooth = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, in, h, w) to ``(B, out, *size)``, where each of ``size`` is 2n - 1 or 2n of h and w."""
        # Scaled by exactly 2, then cropped: resizing to 2n - 1 would misalign the two branches.
        upsampled = F.interpolate(self.reduce(x), scale_factor=2, mode="bilinear", align_corners=False)
        out: Tensor = self.smooth(upsampled[:, :, : size[0], : size[1]])
        return out
